"""A job built from the assets that it concerns is the one that Dagster builds from all of them."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.core.asset_jobs import AssetJob, define_job

DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01")


@dg.asset(partitions_def=DAYS)
def raw() -> None: ...


@dg.multi_asset(
    specs=[dg.AssetSpec(name, deps=[raw], partitions_def=DAYS, skippable=True) for name in ("left", "right")],
    check_specs=[dg.AssetCheckSpec("whole", asset=name) for name in ("left", "right")],
    can_subset=True,
)
def both(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(key, check_results=[dg.AssetCheckResult(passed=True, check_name="whole", asset_key=key)])


@dg.asset(deps=["left", "right", "elsewhere"], partitions_def=DAYS)
def model() -> None: ...


@dg.asset_check(asset=model)
def served() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(deps=[model])
def unrelated() -> None: ...


SELECTIONS = {
    "of_a_part": dg.AssetSelection.assets("left"),
    "of_all": dg.AssetSelection.assets("left", "right", "model"),
    "of_a_check": dg.AssetSelection.checks(dg.AssetCheckKey(model.key, "served")),
    "of_the_end": dg.AssetSelection.assets("unrelated"),
}


def jobs() -> dict[str, dg.JobDefinition]:
    definitions = dg.Definitions(
        assets=[raw, both, model, unrelated],
        asset_checks=[served],
        jobs=[define_job(name, selection=selection, description="") for name, selection in SELECTIONS.items()],
    )
    repository = definitions.get_repository_def()
    return {name: repository.get_job(name) for name in SELECTIONS}


def test_the_job_is_the_one_that_dagster_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    own = jobs()
    monkeypatch.setattr(AssetJob, "resolve", UnresolvedAssetJobDefinition.resolve)
    for name, job in jobs().items():
        assert own[name].get_job_snapshot_id() == job.get_job_snapshot_id()
        graph, expected = own[name].asset_layer.asset_graph, job.asset_layer.asset_graph
        assert graph.get_all_asset_keys() == expected.get_all_asset_keys()
        assert graph.executable_asset_keys == expected.executable_asset_keys
        assert graph.asset_check_keys == expected.asset_check_keys
        assert graph.source_asset_graph.get_all_asset_keys() == expected.source_asset_graph.get_all_asset_keys()


@pytest.mark.parametrize(
    ("name", "made"), [("of_a_part", {"left"}), ("of_all", {"left", "right", "model"}), ("of_a_check", set())]
)
def test_the_job_runs(name: str, made: set[str]) -> None:
    result = jobs()[name].execute_in_process(partition_key="2024-01-02" if made else None)
    assert result.success
    assert {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key} == made
    assert len(result.get_asset_check_evaluations()) == {"of_a_part": 1, "of_all": 3, "of_a_check": 1}[name]
