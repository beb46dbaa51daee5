"""Checks of predictions on rows in memory: each partition has its own result with what was wrong there."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import duckdb
import pytest
from clinic import lake_in_memory, solution_inputs

from mlops_assets.core.check_rules import PartitionCheckResult
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.predictions.prediction_checks import check_complete, check_finite, check_within_partitions

DAYS = [f"2020-01-{day:02}" for day in range(6, 20)]
MONDAYS = ["2020-01-06", "2020-01-13"]
WINDOW = PartitionRange("day", date(2020, 1, 6), date(2020, 1, 20))


@pytest.fixture
def predicted() -> duckdb.DuckDBPyConnection:
    """Ten visits a day for a fortnight, with predictions: one twice and one missing on the 8th, three of the 15th not a number."""
    connection = lake_in_memory()
    connection.execute(
        "CREATE TABLE lake.clinic.visits AS SELECT d * 100 + i AS id, DATE '2020-01-06' + d::INTEGER AS day FROM range(14) r(d), range(10) t(i)"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.predictions AS SELECT id, day, 'batch' AS channel, "
        "CASE WHEN id IN (901, 902, 905) THEN 'nan'::DOUBLE ELSE 0.5 END AS score, true AS _counted, false AS _trained_on "
        "FROM lake.clinic.visits WHERE id <> 203"
    )
    connection.execute("INSERT INTO lake.clinic.predictions SELECT * FROM lake.clinic.predictions WHERE id = 207")
    return connection


def failed(results: Sequence[PartitionCheckResult], keys: Sequence[str]) -> dict[str, Any]:
    assert [result.partition for result in results] == list(keys)
    return {result.partition: result.metadata["examples"].value for result in results if not result.passed}


@pytest.mark.parametrize(("keys", "bad"), [(DAYS, "2020-01-08"), (MONDAYS, "2020-01-06")])
def test_a_missing_and_a_second_prediction_fail_their_partition_alone(
    predicted: duckdb.DuckDBPyConnection, keys: Sequence[str], bad: str
) -> None:
    results = check_complete(predicted, solution_inputs("daily"), WINDOW, keys=keys)
    assert failed(results, keys) == {bad: ["203", "207"]}


@pytest.mark.parametrize(("keys", "bad"), [(DAYS, "2020-01-15"), (MONDAYS, "2020-01-13")])
def test_predictions_that_are_no_numbers_fail_their_partition_alone(
    predicted: duckdb.DuckDBPyConnection, keys: Sequence[str], bad: str
) -> None:
    results = check_finite(predicted, solution_inputs("daily"), WINDOW, keys=keys)
    assert failed(results, keys) == {bad: ["901", "902", "905"]}


def test_a_logged_prediction_outside_of_the_partitions_is_seen() -> None:
    connection, inputs = lake_in_memory(), solution_inputs("daily")
    assert check_within_partitions(connection, inputs).passed
    partitions = inputs.solution.partitions.model_copy(update={"end": date(2020, 2, 1)})
    inputs = replace(inputs, solution=inputs.solution.model_copy(update={"partitions": partitions}))
    connection.execute("CREATE TABLE lake.clinic.prediction_log (prediction_id VARCHAR, day DATE)")
    days = [date(2019, 12, 31), date(2020, 1, 1), date(2020, 1, 31), date(2020, 2, 1)]
    connection.executemany("INSERT INTO lake.clinic.prediction_log VALUES (?, ?)", [(f"p{n}", day) for n, day in enumerate(days)])
    result = check_within_partitions(connection, inputs)
    assert not result.passed
    assert (result.metadata["rows"].value, result.metadata["outside"].value) == (4, 2)
    assert result.metadata["examples"].value == ["2019-12-31, p0", "2020-02-01, p3"]
    assert "no report covers them" in str(result.description)
