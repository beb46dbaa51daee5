"""What steps share, in real runs: their window, their moment, and the rows of each partition."""

from bisect import bisect_right
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from clinic import lake_in_memory, solution_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.lake.schema_evolution import ColumnChange
from mlops_assets.schema.solution import Segments
from mlops_assets.stages.execution import (
    model_of_run,
    partition_date,
    partition_range,
    require_inputs,
    rows_by_partition_key,
    run_time,
    schema_change_metadata,
    table_schema,
)

WEEKS = dg.WeeklyPartitionsDefinition("2024-01-01", end_date="2024-03-04", day_offset=1)
INPUTS = solution_inputs("daily")
SEGMENTED = replace(INPUTS, solution=INPUTS.solution.model_copy(update={"segments": Segments(column="age", values=["old"])}))


def run(compute: object, partitions: dg.PartitionsDefinition, first: str, last: str | None = None) -> object:
    """What `compute` returns inside a step with these partitions, or the failure that it raises."""
    outcome: list[object] = []

    @dg.asset(name="rows", partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def rows(context: dg.AssetExecutionContext) -> None:
        try:
            outcome.append(compute(context))  # type: ignore[operator]
        except dg.Failure as failure:
            outcome.append(failure)

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last} if last else {}
    assert dg.materialize([rows], partition_key=None if last else first, tags=tags).success
    return outcome[0]


def test_the_range_of_a_run_is_half_open() -> None:
    of_range = run(lambda context: partition_range(context, "day"), WEEKS, "2024-01-08", "2024-01-22")
    of_one = run(lambda context: partition_range(context, "day"), WEEKS, "2024-01-08")
    assert [(each.column, each.start, each.end) for each in (of_range, of_one)] == [
        ("day", date(2024, 1, 8), date(2024, 1, 29)),
        ("day", date(2024, 1, 8), date(2024, 1, 15)),
    ]


def test_a_model_has_one_training_date() -> None:
    assert run(partition_date, WEEKS, "2024-01-08") == date(2024, 1, 8)
    failure = run(partition_date, WEEKS, "2024-01-08", "2024-01-22")
    assert isinstance(failure, dg.Failure)
    assert "choose one partition, not 2024-01-08 to 2024-01-22" in str(failure.description)
    assert not failure.allow_retries


def test_the_model_of_a_segment_is_named_by_its_partition() -> None:
    of_segments = replace(SEGMENTED, by_segment=True)
    key = dg.MultiPartitionKey({"training_date": "2020-01-10", "segment": "old"})
    day, inputs = run(lambda context: model_of_run(context, of_segments), of_segments.training_partitions, key)  # type: ignore[misc,arg-type]
    assert (day, inputs.segment) == (date(2020, 1, 10), "old")
    day, inputs = run(lambda context: model_of_run(context, SEGMENTED), SEGMENTED.training_partitions, "2020-01-10")  # type: ignore[misc]
    assert (day, inputs.segment) == (date(2020, 1, 10), None)


def test_the_moment_of_a_run_is_the_same_in_each_of_its_steps() -> None:
    before = datetime.now(UTC)
    first, second = run(lambda context: (run_time(context), run_time(context)), WEEKS, "2024-01-08")  # type: ignore[misc]
    assert first == second
    assert before - timedelta(seconds=1) < first < datetime.now(UTC)


@settings(max_examples=50)
@given(
    st.lists(st.dates(date(2024, 1, 1), date(2024, 12, 31)), min_size=1, max_size=6, unique=True),
    st.dictionaries(st.none() | st.dates(date(2023, 12, 1), date(2025, 1, 31)), st.integers(0, 9), max_size=12),
)
def test_rows_count_for_the_partition_that_their_date_is_in(starts: list[date], counts: dict[date | None, int]) -> None:
    keys = sorted(start.isoformat() for start in starts)
    rows = rows_by_partition_key(reversed(keys), {"" if day is None else day.isoformat(): count for day, count in counts.items()})
    expected = dict.fromkeys(keys, 0)
    for day, count in counts.items():
        if day is not None and (position := bisect_right(keys, day.isoformat())):
            expected[keys[position - 1]] += count
    assert rows == expected


def test_tables_that_are_not_there_are_named_with_what_makes_them() -> None:
    connection = lake_in_memory()
    with pytest.raises(dg.Failure) as failure:
        require_inputs(connection, INPUTS)
    assert failure.value.description == "The lake lacks clinic.visits: materialize clinic/visits first."
    assert not failure.value.allow_retries
    connection.execute("CREATE TABLE lake.clinic.visits (id INTEGER)")
    require_inputs(connection, INPUTS)


def test_the_columns_of_a_table_are_shown_with_types_and_descriptions() -> None:
    connection = lake_in_memory()
    connection.execute('CREATE TABLE lake.clinic.visits (id INTEGER, price DECIMAL(9, 2), "a b" VARCHAR[])')
    schema = table_schema(connection, "lake.clinic.visits", {"id": "Number of the visit.", "gone": "x"})
    assert [(column.name, column.type, column.description) for column in schema.columns] == [
        ("id", "INTEGER", "Number of the visit."),
        ("price", "DECIMAL(9,2)", None),
        ("a b", "VARCHAR[]", None),
    ]


def test_changes_of_columns_are_told() -> None:
    assert schema_change_metadata("raw.orders", []) == {}
    changes = [ColumnChange("a", "INTEGER", "BIGINT"), ColumnChange("b", None, "VARCHAR")]
    [text] = schema_change_metadata("raw.orders", changes).values()
    assert text.value == [str(change) for change in changes]
