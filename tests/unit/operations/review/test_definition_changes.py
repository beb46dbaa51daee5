"""Differences of two dumps of definitions, and of the YAML of two revisions."""

from typing import Any

import dagster as dg
from clinic import solution_inputs

from mlops_assets.operations.review.definition_changes import (
    compare_dumps,
    compare_solutions,
    load_errors,
    removed_gates,
)
from mlops_assets.operations.review.definitions_dump import dump_definitions


def _definitions(
    *, blocking: bool = True, start: str = "2024-01-01", name: str = "totals", eager: bool = False
) -> dg.Definitions:
    partitions = dg.DailyPartitionsDefinition(start)
    condition = dg.AutomationCondition.eager() if eager else dg.AutomationCondition.on_missing()

    @dg.asset(partitions_def=partitions)
    def orders() -> None: ...

    @dg.asset(name=name, partitions_def=partitions, deps=[orders], code_version="1", automation_condition=condition)
    def totals() -> None: ...

    @dg.asset_check(asset=orders, blocking=blocking)
    def rows() -> dg.AssetCheckResult: ...

    @dg.asset_check(asset=totals)
    def sums() -> dg.AssetCheckResult: ...

    job = dg.define_asset_job("daily", selection=[orders])
    schedule = dg.ScheduleDefinition("nightly", cron_schedule="0 2 * * *" if blocking else "0 3 * * *", job=job)
    return dg.Definitions(assets=[orders, totals], asset_checks=[rows, sums], jobs=[job], schedules=[schedule])


def _lines(before: dg.Definitions, after: dg.Definitions) -> list[str]:
    changes = compare_dumps(dump_definitions(before), dump_definitions(after))
    return [f"{change.change} {change.kind} {change.name}: {'; '.join(change.details)}" for change in changes]


def test_equal_definitions_have_no_difference() -> None:
    assert _lines(_definitions(), _definitions()) == []


def test_what_changes_of_an_asset_is_named() -> None:
    lines = _lines(_definitions(), _definitions(start="2024-02-01"))
    assert lines[0].startswith("changed asset orders: partitions: Daily, starting 2024-01-01")
    assert "→ Daily, starting 2024-02-01" in lines[0]
    [line] = _lines(_definitions(), _definitions(eager=True))
    assert line.startswith("changed asset totals: condition: on_missing (")
    assert "→ eager (" in line


def test_a_renamed_asset_is_one_that_goes_and_one_that_comes_with_its_checks() -> None:
    assert _lines(_definitions(), _definitions(name="sums_by_day")) == [
        "added asset sums_by_day: ",
        "removed asset totals: ",
    ]


def test_a_check_that_blocks_no_more_is_a_gate_that_is_gone() -> None:
    before, after = _definitions(), _definitions(blocking=False)
    assert removed_gates(dump_definitions(before), dump_definitions(after)) == ["orders: rows blocks no more"]
    assert _lines(before, after) == [
        "changed check orders: rows: blocking: True → False",
        "changed schedule nightly: cron: 0 2 * * * → 0 3 * * *",
    ]
    # A check that warns is none.
    assert removed_gates(dump_definitions(after), dump_definitions(before)) == []


def test_a_folder_that_cannot_be_loaded_any_more_is_named() -> None:
    good: dict[str, dict[str, Any]] = {"asset": {"a": {}}}
    bad: dict[str, dict[str, Any]] = {"asset": {"configuration_error/orders": {}}}
    assert load_errors(good, bad) == ["defs/orders cannot be loaded: mlops check"]
    assert load_errors(bad, bad) == []


def test_the_yaml_of_a_solution_is_compared_field_by_field() -> None:
    before = solution_inputs("daily").solution
    changed = before.training.model_copy(update={"window": "60d"})
    after = before.model_copy(update={"training": changed})
    [change] = compare_solutions({"clinic": before}, {"clinic": after})
    assert (change.change, change.details) == ("changed", ("training.window: 30d → 60d",))
    assert [each.change for each in compare_solutions({}, {"clinic": after})] == ["added"]
