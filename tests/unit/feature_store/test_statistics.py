"""The statistics of a view with months, texts, truth values, NaN and nothing at all, in an in-memory DuckDB."""

import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.feature_store.statistics import newest_statistics, statistics_query

TYPES = {"id": "INTEGER", "number": "DOUBLE", "name": "VARCHAR", "flag": "BOOLEAN", "nothing": "DOUBLE", "day": "DATE"}
STARTS = ["2013-01-01", "2013-02-01", "2013-03-01"]


def view(partition_column: str | None) -> FeatureView:
    model = DbtModel(
        name="history",
        table="features.history",
        description="",
        columns={name: kind.lower() for name, kind in TYPES.items() if name != "day" or partition_column},
        column_descriptions={},
        partition_column=partition_column,
    )
    return FeatureView(model=model, version=2, entity=("id",), event_timestamp=None, freshness_days=None, owner=None)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("ATTACH ':memory:' AS lake")
        connection.execute("CREATE SCHEMA lake.features")
        columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
        connection.execute(f"CREATE TABLE lake.features.history ({columns})")
        connection.execute(
            "INSERT INTO lake.features.history VALUES "
            "(1, 1, 'a', true, NULL, '2013-01-01'), (2, 3, 'a', false, NULL, '2013-01-31'), (3, 'nan', NULL, true, NULL, '2013-01-15'), "
            "(4, 7, 'b', true, NULL, '2013-02-01'), (5, 9, 'c', true, NULL, '2013-03-01'), (6, 9, 'c', true, NULL, '2012-12-31')"
        )
        yield connection


def statistics(connection: duckdb.DuckDBPyConnection, partition_column: str | None) -> dict[tuple[str, str], dict[str, Any]]:
    result = connection.execute(statistics_query(view(partition_column), types=TYPES, starts=STARTS))
    names = [column[0] for column in result.description]
    rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    return {(str(row["partition"]), row["feature"]): row for row in rows}


def test_rows_belong_to_the_partition_that_holds_their_day(connection: duckdb.DuckDBPyConnection) -> None:
    found = statistics(connection, "day")
    assert {partition for partition, _ in found} == {"2013-01-01", "2013-02-01"}
    assert [found[partition, "number"]["rows"] for partition in STARTS[:2]] == [3, 1]
    assert {row["view"] for row in found.values()} == {"history"}
    assert {row["version"] for row in found.values()} == {2}


def test_an_infinite_number_is_counted_and_left_out(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE OR REPLACE TABLE lake.features.kept AS FROM lake.features.history")
    values = ", ".join(
        f"({number}, {value}, 'a', true, NULL, '2013-01-02')" for number, value in ((7, "'inf'"), (8, "'-inf'"), (9, "1e300"))
    )
    connection.execute(f"INSERT INTO lake.features.history VALUES {values}")
    found = statistics(connection, "day")["2013-01-01", "number"]
    connection.execute("CREATE OR REPLACE TABLE lake.features.history AS FROM lake.features.kept")
    assert (found["rows"], found["infinite_values"], found["minimum"], found["maximum"], found["mean"]) == (6, 3, 1, 3, 2)
    assert found["missing_share"] == pytest.approx(1 / 6)


def test_nan_is_missing(connection: duckdb.DuckDBPyConnection) -> None:
    number = statistics(connection, "day")["2013-01-01", "number"]
    assert number["missing_share"] == pytest.approx(1 / 3)
    assert (number["mean"], number["minimum"], number["median"], number["maximum"]) == (2, 1, 2, 3)
    assert number["standard_deviation"] == pytest.approx(math.sqrt(2))
    assert (number["distinct_values"], number["most_frequent_share"]) == (2, 0.5)


def test_texts_have_counts_and_no_moments(connection: duckdb.DuckDBPyConnection) -> None:
    name = statistics(connection, "day")["2013-01-01", "name"]
    assert (name["distinct_values"], name["most_frequent_share"], name["missing_share"]) == (1, 1, pytest.approx(1 / 3))
    assert name["mean"] is name["minimum"] is name["quantile_05"] is None


def test_truth_values_count_as_0_and_1(connection: duckdb.DuckDBPyConnection) -> None:
    assert statistics(connection, "day")["2013-01-01", "flag"]["mean"] == pytest.approx(2 / 3)


def test_a_column_without_values_is_missing_and_not_constant(connection: duckdb.DuckDBPyConnection) -> None:
    nothing = statistics(connection, "day")["2013-01-01", "nothing"]
    assert (nothing["missing_share"], nothing["distinct_values"]) == (1, 0)
    assert nothing["most_frequent_share"] is nothing["mean"] is nothing["maximum"] is None


def test_a_view_without_partitions_is_described_whole(connection: duckdb.DuckDBPyConnection) -> None:
    found = statistics(connection, None)
    assert found["None", "number"]["rows"] == 6


def test_the_newest_statistics_are_those_of_the_last_partition(connection: duckdb.DuckDBPyConnection) -> None:
    query = statistics_query(view("day"), types=TYPES, starts=STARTS)
    connection.execute(f"CREATE OR REPLACE TABLE lake.features.x_statistics AS SELECT *, now() AS _loaded_at FROM ({query})")
    rows = newest_statistics(connection, table="features.x_statistics", view="history", version=2)
    assert {(str(row["partition"]), row["feature"]) for row in rows} == {
        ("2013-02-01", feature) for feature in ("number", "name", "flag", "nothing")
    }
    assert newest_statistics(connection, table="features.x_statistics", view="history", version=1) == []
    assert newest_statistics(connection, table="features.none", view="history", version=2) == []
