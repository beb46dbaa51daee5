"""A challenger and its champion on the same requests, once their labels are known."""

import duckdb
import pytest
from decisions import INPUTS, Served

from mlops_assets.operations.realised_comparison import RealisedComparison, compare_realised
from mlops_assets.schema.metric_names import metric_names

DAYS, REQUESTS = 20, 1000
LATE = "id % 2 = 0"
SCORES = {1: f"CASE WHEN {LATE} THEN 0.6 ELSE 0.49 - hash(id) % 100 / 400 END", 2: f"CASE WHEN {LATE} THEN 0.9 ELSE 0.1 END"}
"""The challenger, version 2, is surer of what happens."""


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    """50 requests a day: the champion answers, but every tenth, which the challenger does. The labels of the last day are not known."""
    connection = duckdb.connect()
    connection.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.clinic")
    made = " UNION ALL ".join(
        f"SELECT 'r' || id || '{suffix}' AS prediction_id, {version} AS model_version, id, CAST({SCORES[version]} AS FLOAT) AS score, "
        f"(id % 10 = 0) = ({version} = 2) AS answered FROM range({REQUESTS}) r(id)"
        for version, suffix in ((1, ""), (2, ":challenger"))
    )
    for table, answered in (("prediction_log", "answered"), ("shadow_predictions", "NOT answered")):
        connection.execute(f"CREATE TABLE lake.clinic.{table} AS SELECT * EXCLUDE (answered) FROM ({made}) WHERE {answered}")
    return connection


def mature(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"CREATE TABLE lake.clinic.outcomes AS SELECT prediction_id, id, model_version, {LATE} AS late, "
        f"TIMESTAMPTZ '2020-03-01 00:00:00+00' + to_hours(24 * id // 50) AS asked_at, id // 50 < {DAYS - 1} AS matured "
        "FROM lake.clinic.prediction_log"
    )


def compare(connection: duckdb.DuckDBPyConnection) -> RealisedComparison:
    return compare_realised(connection, INPUTS, Served().contract, champion=1, challenger=2)


def test_both_are_measured_on_the_requests_with_known_labels_by_every_metric(connection: duckdb.DuckDBPyConnection) -> None:
    mature(connection)
    compared = compare(connection)
    assert (compared.rows, compared.obstacle) == (REQUESTS - REQUESTS // DAYS, None)
    assert set(compared.differences) == set(metric_names("binary_classification"))
    loss = compared.differences["log_loss"]
    assert (loss.ours, loss.theirs) == (pytest.approx(0.105, abs=0.001), pytest.approx(0.49, abs=0.02))
    assert loss.is_better
    assert loss.interval is not None
    assert loss.interval.low < loss.value < loss.interval.high < 0
    # Both decide everything right.
    accuracy = compared.differences["accuracy"]
    assert (accuracy.ours, accuracy.theirs, accuracy.value) == (1.0, 1.0, 0.0)


def test_before_labels_are_known_it_says_so(connection: duckdb.DuckDBPyConnection) -> None:
    assert compare(connection).obstacle == "no label is known yet: clinic/outcomes was never materialized"
    mature(connection)
    connection.execute("UPDATE lake.clinic.outcomes SET matured = false, late = NULL")
    assert compare(connection) == RealisedComparison(0, {}, "no label of these requests is known yet, as clinic/outcomes has it")


def test_requests_of_another_pair_of_versions_do_not_count(connection: duckdb.DuckDBPyConnection) -> None:
    mature(connection)
    connection.execute("UPDATE lake.clinic.shadow_predictions SET model_version = 3 WHERE model_version = 2 AND id < 500")
    [[rows]] = connection.execute("SELECT count(*) FROM lake.clinic.shadow_predictions WHERE model_version = 3").fetchall()
    assert compare(connection).rows == REQUESTS - REQUESTS // DAYS - rows
