"""Check rules in real runs: what a failure stops."""

import dagster as dg
import pytest

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import CheckRule, PartitionCheckResult


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failure_stops_what_follows_only_when_the_rule_blocks(blocking: bool) -> None:
    rule = CheckRule(name="sound", description="It is sound.", blocking=blocking)

    @dg.asset(check_specs=[rule.spec(dg.AssetKey("first"))])
    def first() -> dg.MaterializeResult:
        failed = rule.result(dg.AssetKey("first"), passed=False, metadata={"rows": 3}, description="3 rows are not")
        return dg.MaterializeResult(check_results=[failed])

    @dg.asset(deps=[first])
    def second() -> None:
        """Follow."""

    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize([first, second], instance=instance, raise_on_error=False)
    assert (instance.get_latest_materialization_event(dg.AssetKey("second")) is None) is blocking
    assert result.success is not blocking
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.severity is (dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN)
    assert (evaluation.description, evaluation.metadata["rows"].value) == ("3 rows are not", 3)


def test_a_result_of_a_partition_is_the_result_with_its_partition() -> None:
    result = check_rules.DUPLICATES.result(dg.AssetKey(["a", "b"]), passed=False, metadata={"twice": 2}, description="2 keys")
    of_partition = PartitionCheckResult.of(result, "2024-01-01")
    assert of_partition.partition == "2024-01-01"
    assert of_partition._asdict() == result._asdict()


def test_the_name_of_a_rule_is_its_own() -> None:
    rules = [rule for rule in vars(check_rules).values() if isinstance(rule, CheckRule)]
    assert len({rule.name for rule in rules}) == len(rules) > 20
