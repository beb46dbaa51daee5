"""A challenger beside the champion, from the two tables of predictions."""

import duckdb
import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.operations.trial import compare_versions


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.example")
    return connection


def fill(connection: duckdb.DuckDBPyConnection, answered: str, others: str, columns: str) -> None:
    for table, rows in (("predictions", answered), ("shadow_predictions", others)):
        connection.execute(f"CREATE TABLE lake.example.{table} (prediction_id VARCHAR, model_version INTEGER, {columns})")
        connection.execute(f"INSERT INTO lake.example.{table} VALUES {rows}")


def test_the_shadow_and_the_canary_are_compared_on_the_same_requests(connection: duckdb.DuckDBPyConnection) -> None:
    fill(
        connection,
        "('e:online:1', 1, 0.2, 0), ('e:online:2', 1, 0.6, 1), ('e:online:3:challenger', 2, 0.5, 1), ('e:k:1', 1, 0.9, 1)",
        "('e:online:1:challenger', 2, 0.3, 0), ('e:online:2:challenger', 2, 0.4, 0), ('e:online:3', 1, 0.5, 1)",
        "score DOUBLE, predicted_label INTEGER",
    )
    [entry] = compare_versions(connection, "example")
    assert (entry["champion"], entry["challenger"], entry["requests"], entry["answered_by_challenger"]) == (1, 2, 3, 1)
    assert entry["mean_difference"] == pytest.approx(0.1)
    assert entry["largest_difference"] == pytest.approx(0.2)
    assert entry["different_labels"] == pytest.approx(1 / 3)


def test_values_of_a_regression(connection: duckdb.DuckDBPyConnection) -> None:
    fill(connection, "('e:online:1', 1, 10)", "('e:online:1:challenger', 2, 14)", "value DOUBLE")
    [entry] = compare_versions(connection, "example")
    assert (entry["challenger_mean"], entry["mean_difference"], entry["different_labels"]) == (14, 4, None)


def test_without_a_challenger_the_remedy_is_said(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(StackError, match="No challenger of example has predicted anything") as error:
        compare_versions(connection, "example")
    assert "shadow: true" in error.value.remedy
