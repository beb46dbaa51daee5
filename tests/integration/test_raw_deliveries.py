"""Deliveries of a raw table on a real lake: compared with those before, set aside when they fail, accepted or corrected later."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.core.conditions import ON_NEW_INPUTS
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.source import Source
from mlops_assets.sources.raw_tables import build_raw_assets

MakeLake = Callable[[], Lake]
FIRST = date(2020, 1, 1)
LAST = date(2020, 1, 12)
TABLE: dict[str, Any] = {
    "description": "Orders.",
    "files": ["orders.csv"],
    "format": "csv",
    "key": ["id"],
    "partitions": {"column": "day", "start": "2020-01-01", "end": "2020-02-01", "cadence": "daily"},
    "columns": {
        "id": {"type": "integer", "required": True},
        "day": {"type": "date", "required": True},
        "minutes": {"type": "double"},
        "shop": {"type": "varchar"},
    },
}


def rows_of(day: date, minutes: Callable[[int], float] = lambda number: 20 + number % 25) -> list[str]:
    number_of_day = (day - FIRST).days
    return [f"{number_of_day * 100 + number},{day},{minutes(number)},{'abc'[number % 3]}" for number in range(60)]


def write(folder: Path, rows: list[str], header: str = "id,day,minutes,shop") -> None:
    (folder / "orders.csv").write_text("\n".join([header, *rows, ""]))


def run(
    folder: Path, lake: Lake, *, start: date = LAST, end: date = LAST, accept: str | None = None, **changes: Any
) -> dg.ExecuteInProcessResult:
    assets = build_raw_assets(
        Source.model_validate({"owners": ["team:a"], "tables": {"orders": {**TABLE, **changes}}}), directory=folder
    )

    @dg.asset(deps=[assets[0].key], partitions_def=assets[0].partitions_def, backfill_policy=dg.BackfillPolicy.single_run())
    def downstream() -> None: ...

    return dg.materialize(
        [*assets, downstream],
        resources={"lake": lake},
        tags={"dagster/asset_partition_range_start": str(start), "dagster/asset_partition_range_end": str(end)},
        run_config={"ops": {"raw__orders": {"config": {"accept": accept}}}} if accept else {},
        raise_on_error=False,
    )


def outcome(result: dg.ExecuteInProcessResult, check: str, day: date = LAST) -> dg.AssetCheckEvaluation:
    of_day = [each for each in result.get_asset_check_evaluations() if each.partition in (None, str(day))]
    [found] = [each for each in of_day if each.check_name == check]
    return found


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    return str(event.event_specific_data.user_failure_data.description)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def lake(make_lake: MakeLake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake that took the deliveries of twelve days, one of which, the last, is delivered again by the tests."""
    lake, folder = make_lake(), tmp_path_factory.mktemp("good")
    write(folder, [row for number in range(12) for row in rows_of(FIRST + timedelta(days=number))])
    result = run(folder, lake, start=FIRST, end=LAST)
    assert result.success
    assert outcome(result, "delivery").passed
    return lake


def minutes_of(lake: Lake, table: str, day: date = LAST) -> float:
    with lake.connect(read_only=True) as connection:
        return float(connection.execute(f"SELECT coalesce(sum(minutes), 0) FROM {table} WHERE day = ?", [day]).fetchall()[0][0])


def test_a_delivery_in_another_unit_is_set_aside_and_the_good_rows_stay(lake: Lake, tmp_path: Path) -> None:
    good = minutes_of(lake, "raw.orders")
    write(tmp_path, rows_of(LAST, lambda number: (20 + number % 25) / 60))
    result = run(tmp_path, lake)
    assert not result.success
    check = outcome(result, "delivery")
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "minutes of 2020-01-12: values are as if multiplied by 1/60 (hours for minutes" in str(check.description)
    assert "The delivery of 2020-01-12 was not taken into raw.orders, which is as it was: delivery (" in failure(result)
    assert "Its rows are in raw_quarantine.orders" in str(check.metadata["delivery"].value)
    # To notifications and commands it is a failed check, not a fault of the platform.
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    cause = event.event_specific_data.error.cause  # type: ignore[union-attr]
    assert (cause.cls_name, cause.cause) == ("DagsterAssetCheckFailedError", None)
    # Neither the partition nor what is downstream looks materialized.
    assert not result.get_asset_materialization_events()
    assert minutes_of(lake, "raw.orders") == good
    assert minutes_of(lake, "raw_quarantine.orders") == pytest.approx(good / 60)

    write(tmp_path, rows_of(LAST))
    assert run(tmp_path, lake).success
    assert minutes_of(lake, "raw_quarantine.orders") == 0
    assert minutes_of(lake, "raw.orders") == good


def test_values_of_a_delivery_are_evidence_of_its_check_and_in_no_message(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path, [row.rpartition(",")[0] + ",4111-1111" for row in rows_of(LAST)])
    result = run(tmp_path, lake)
    assert not result.success
    check = outcome(result, "delivery")
    assert "4111-1111" in str(check.metadata["differences"].value)
    assert "shop of 2020-01-12: 100% of the rows have new values" in failure(result)
    others = [check.description, check.metadata["delivery"].value, *(event.message for event in result.all_events)]
    assert not [text for text in others if "4111" in str(text)]


def test_a_delivery_is_taken_as_it_is_when_a_person_says_why(lake: Lake, tmp_path: Path) -> None:
    day = LAST + timedelta(days=1)
    write(tmp_path, rows_of(day, lambda number: 1200 + number))
    refused = run(tmp_path, lake, start=day, end=day)
    assert not refused.success
    assert minutes_of(lake, "raw.orders", day) == 0
    taken = run(tmp_path, lake, start=day, end=day, accept="a strike, confirmed by the shop")
    assert taken.success
    check = outcome(taken, "delivery", day)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["accepted_because"].value == "a strike, confirmed by the shop"
    event = taken.asset_materializations_for_node("raw__orders")[-1]
    assert event.metadata["accepted_because"].value == "a strike, confirmed by the shop"
    assert minutes_of(lake, "raw.orders", day) == sum(1200 + number for number in range(60))
    assert minutes_of(lake, "raw_quarantine.orders", day) == 0


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda rows: rows[:30], "delivery"),
        (lambda rows: [row.replace(",a", ",A").replace(",b", ",B").replace(",c", ",C") for row in rows], "delivery"),
        (lambda rows: [*rows, rows[0]], "duplicates"),
    ],
    ids=["half of the rows", "categories in another case", "a row twice"],
)
def test_every_blocking_check_is_made_before_the_swap(
    lake: Lake, tmp_path: Path, change: Callable[[list[str]], list[str]], check: str
) -> None:
    good = minutes_of(lake, "raw.orders")
    write(tmp_path, change(rows_of(LAST)))
    result = run(tmp_path, lake)
    assert not result.success
    assert [each.check_name for each in result.get_asset_check_evaluations() if not each.passed] == [check]
    assert minutes_of(lake, "raw.orders") == good


def test_a_renamed_column_is_named_with_the_way_to_follow_it(lake: Lake, tmp_path: Path) -> None:
    columns = {("duration" if name == "minutes" else name): column for name, column in TABLE["columns"].items()}
    write(tmp_path, rows_of(LAST), header="id,day,duration,shop")
    message = failure(run(tmp_path, lake, columns=columns))
    assert "minutes is gone and duration has 100% of its values: probably the same column renamed" in message
    assert "`mlops schema apply raw.orders --rename minutes=duration`" in message


def test_a_first_delivery_has_nothing_to_be_compared_with_and_the_comparison_can_be_off(
    make_lake: MakeLake, tmp_path: Path
) -> None:
    lake = make_lake()
    write(tmp_path, rows_of(LAST))
    result = run(tmp_path, lake)
    assert result.success
    assert outcome(result, "delivery").metadata["partitions_before"].value == 0
    result = run(tmp_path, lake, comparison={"enabled": False})
    assert "delivery" not in {each.check_name for each in result.get_asset_check_evaluations()}


def test_a_table_without_partitions_is_compared_with_its_last_version(make_lake: MakeLake, tmp_path: Path) -> None:
    lake = make_lake()

    def load(rows: list[str]) -> dg.ExecuteInProcessResult:
        write(tmp_path, rows)
        table = {**TABLE, "partitions": None}
        assets = build_raw_assets(Source.model_validate({"owners": ["team:a"], "tables": {"orders": table}}), directory=tmp_path)
        return dg.materialize(assets, resources={"lake": lake}, raise_on_error=False)

    rows = rows_of(FIRST)
    assert load(rows).success
    assert load([*rows, *rows_of(LAST)[:5]]).success
    lost = load(rows[:20])
    assert not lost.success
    assert "20 rows, the 1 partitions before have at least 65" in str(outcome(lost, "delivery").description)


def test_one_bad_day_of_a_month_is_that_day_alone(make_lake: MakeLake, tmp_path: Path) -> None:
    lake, instance = make_lake(), dg.DagsterInstance.ephemeral()
    days = [FIRST + timedelta(days=number) for number in range(30)]
    bad = days[14]
    # In another unit and twice.
    rows = {day: rows_of(day) if day != bad else rows_of(day, lambda number: (20 + number % 25) / 60) * 2 for day in days}
    write(tmp_path, [row for day in days for row in rows[day]])
    [raw] = build_raw_assets(Source.model_validate({"owners": ["team:a"], "tables": {"orders": TABLE}}), directory=tmp_path)

    @dg.asset(
        deps=[raw.key],
        partitions_def=raw.partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=ON_NEW_INPUTS,
    )
    def following() -> None: ...

    defs = dg.Definitions([raw, following], resources={"lake": lake})
    switched_on = dg.evaluate_automation_conditions(defs, instance)
    result = dg.materialize(
        [raw, following],
        resources={"lake": lake},
        instance=instance,
        tags={"dagster/asset_partition_range_start": str(days[0]), "dagster/asset_partition_range_end": str(days[-1])},
        raise_on_error=False,
    )

    evaluations = result.get_asset_check_evaluations()
    assert {check.partition for check in evaluations} == set(map(str, days))
    for rule in ("row_count", "rejected_rows", "duplicates", "delivery"):
        of_rule = {check.partition: check for check in evaluations if check.check_name == rule}
        assert len(of_rule) == len(days)
        refused = {str(bad)} if rule in ("duplicates", "delivery") else set()
        assert {partition for partition, check in of_rule.items() if not check.passed} == refused
    assert outcome(result, "duplicates", bad).metadata["examples"].value == [[str(1400 + number)] for number in range(5)]

    # The run says what is wrong, and has written the other days.
    assert not result.success
    assert "The delivery of 2020-01-15 was not taken into raw.orders" in failure(result)
    assert "The other 29 partitions were written." in failure(result)
    with lake.connect(read_only=True) as connection:
        written = dict(connection.execute("SELECT CAST(day AS VARCHAR), count(*) FROM raw.orders GROUP BY 1").fetchall())
        aside = dict(connection.execute("SELECT CAST(day AS VARCHAR), count(*) FROM raw_quarantine.orders GROUP BY 1").fetchall())
        remembered = connection.execute("SELECT DISTINCT CAST(partition AS VARCHAR) FROM raw_profiles.orders").fetchall()
    others = {str(day) for day in days if day != bad}
    assert (written, aside) == (dict.fromkeys(others, 60), {str(bad): 120})
    assert {day for (day,) in remembered} == others
    assert set(instance.get_materialized_partitions(raw.key)) == others

    # What follows is asked for, for those days alone.
    ticked = dg.evaluate_automation_conditions(defs, instance, cursor=switched_on.cursor)
    assert ticked.get_requested_partitions(following.key) == others

    # A corrected delivery of the day frees what follows of it.
    write(tmp_path, rows_of(bad))
    mended = dg.materialize([raw], resources={"lake": lake}, instance=instance, partition_key=str(bad))
    assert mended.success
    freed = dg.evaluate_automation_conditions(defs, instance, cursor=ticked.cursor)
    assert freed.get_requested_partitions(following.key) == {str(bad)}
    assert not load_quarantine(lake)


def load_quarantine(lake: Lake) -> list[Any]:
    with lake.connect(read_only=True) as connection:
        return connection.execute("FROM raw_quarantine.orders").fetchall()
