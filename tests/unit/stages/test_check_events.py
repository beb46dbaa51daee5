"""Results of checks by partition, in a real run of several partitions."""

import warnings
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import AssetCheckKey

from mlops_assets.core.check_rules import CheckRule, Evidence, PartitionCheckResult
from mlops_assets.stages.faults import step

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05")
KEY = dg.AssetKey("orders")
EVIDENCE = Evidence(measured=("day",), bound=("limit",), no_examples="A day has no rows to show.")
BAD = "2024-01-02"


def run(instance: dg.DagsterInstance, *, blocking: bool, bad: str | None = BAD) -> dg.ExecuteInProcessResult:
    rule = CheckRule("row_count", "There are enough rows.", blocking, EVIDENCE)
    whole = CheckRule("whole", "The table is sound.", False, EVIDENCE)

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[rule.partitioned_spec(KEY, DAYS), whole.spec(KEY)],
    )
    @step
    def orders(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        results = [
            PartitionCheckResult.from_result(
                rule.result(KEY, passed=day != bad, metadata={"day": day, "limit": 1}, description=None), day
            )
            for day in context.partition_keys
        ]
        yield dg.MaterializeResult(
            check_results=[*results, whole.result(KEY, passed=True, metadata={"day": "all", "limit": 1}, description=None)]
        )

    tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-04"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dg.materialize([orders], instance=instance, tags=tags, raise_on_error=False)


@pytest.mark.parametrize("blocking", [True, False])
def test_each_partition_has_its_own_result_and_one_bad_day_stops_the_run_only_when_it_blocks(blocking: bool) -> None:
    instance = dg.DagsterInstance.ephemeral()
    result = run(instance, blocking=blocking)
    assert result.success is not blocking
    evaluations = {each.partition: each for each in result.get_asset_check_evaluations() if each.check_name == "row_count"}
    assert {day: each.passed for day, each in evaluations.items()} == {day: day != BAD for day in DAYS.get_partition_keys()}
    assert {each.metadata["day"].value for each in evaluations.values()} == set(DAYS.get_partition_keys())
    # All of it was written before it was evaluated.
    assert instance.get_materialized_partitions(KEY) == set(DAYS.get_partition_keys())


def test_a_result_names_the_materialization_that_it_is_about() -> None:
    instance = dg.DagsterInstance.ephemeral()
    run(instance, blocking=False)
    second = run(instance, blocking=False, bad=None)
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        KEY, dg.DagsterEventType.ASSET_MATERIALIZATION, set(DAYS.get_partition_keys())
    )
    for evaluation in second.get_asset_check_evaluations():
        if evaluation.check_name == "row_count":
            target = evaluation.target_materialization_data
            assert target is not None
            assert (target.run_id, target.storage_id) == (second.run_id, newest[str(evaluation.partition)])


def test_a_check_of_the_whole_asset_keeps_its_one_result() -> None:
    instance = dg.DagsterInstance.ephemeral()
    result = run(instance, blocking=False)
    [whole] = [each for each in result.get_asset_check_evaluations() if each.check_name == "whole"]
    assert (whole.partition, whole.passed) == (None, True)
    assert AssetCheckKey(KEY, "whole") in {each.asset_check_key for each in result.get_asset_check_evaluations()}
