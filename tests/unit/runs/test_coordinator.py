"""The coordinator: what a run does decides which slots it has, whoever asks for the run."""

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.execution.api import create_execution_plan
from dagster._core.run_coordinator import SubmitRunContext
from run_instances import CODE, REMOTE

from mlops_assets.runs.slots import CHAMPION, SLOTS_TAG, VERSION_CHECK, WORK


@dg.asset(op_tags={SLOTS_TAG: CHAMPION})
def deployment() -> None: ...


@dg.asset(deps=[deployment])
def predictions() -> None: ...


@dg.asset_check(asset=deployment, op_tags={SLOTS_TAG: VERSION_CHECK})
def served_version() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def submitted(instance: DagsterInstance, selection: dg.AssetSelection, tags: dict[str, str]) -> dict[str, str]:
    """The tags of a run of the selection once it is queued."""
    definitions = dg.Definitions(
        assets=[deployment, predictions], asset_checks=[served_version], jobs=[dg.define_asset_job("some", selection=selection)]
    )
    job = definitions.resolve_job_def("some")
    plan = create_execution_plan(job)
    run = instance.create_run_for_job(job, execution_plan=plan, tags=tags, remote_job_origin=REMOTE, job_code_origin=CODE)
    queued = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # type: ignore[arg-type]
    assert queued.status is DagsterRunStatus.QUEUED
    return dict(queued.tags)


def test_a_run_is_classed_by_what_it_executes(instance: DagsterInstance) -> None:
    assert submitted(instance, dg.AssetSelection.assets(deployment).without_checks(), {})[SLOTS_TAG] == CHAMPION
    assert submitted(instance, dg.AssetSelection.checks(served_version), {})[SLOTS_TAG] == VERSION_CHECK
    assert submitted(instance, dg.AssetSelection.assets(deployment, predictions), {})[SLOTS_TAG] == WORK


def test_nobody_takes_the_slots_of_another_kind_by_a_tag(instance: DagsterInstance) -> None:
    tags = submitted(instance, dg.AssetSelection.assets(predictions), {SLOTS_TAG: CHAMPION, "dagster/priority": "99"})
    assert (tags[SLOTS_TAG], tags["dagster/priority"]) == (WORK, "0")


def test_the_switch_of_a_champion_comes_first(instance: DagsterInstance) -> None:
    tags = submitted(instance, dg.AssetSelection.assets(deployment).without_checks(), {})
    assert int(tags["dagster/priority"]) > 0
    assert int(tags["dagster/max_runtime"]) > 0
