"""Which batch predictions are outdated: those whose inputs changed in a way that they may have seen, on a real lake."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta

import duckdb
import pytest
from late_inputs import INPUTS, SOLUTION

from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.operations.rescoring import adjacent_ranges, outdated_partitions

FIRST = date(2020, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@pytest.fixture(scope="module")
def shared_lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@pytest.fixture
def connection(shared_lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """Thirty days, one row each in spine and view, scored as of now."""
    with shared_lake.connect(read_only=False) as opened:
        opened.execute("DROP SCHEMA IF EXISTS features CASCADE")
        opened.execute(f"DROP SCHEMA IF EXISTS {SOLUTION} CASCADE")
        opened.execute("CREATE SCHEMA features")
        opened.execute(f"CREATE SCHEMA {SOLUTION}")
        opened.execute(
            "CREATE TABLE features.load AS SELECT 'p' AS place, TIMESTAMPTZ '2020-01-01 06:00:00+00' + to_days(CAST(i AS INTEGER)) AS moment, "
            "CAST(DATE '2020-01-01' + to_days(CAST(i AS INTEGER)) AS DATE) AS day, 1::BIGINT AS waiting, true AS open, now() AS _loaded_at "
            "FROM range(30) r(i)"
        )
        opened.execute(
            f"CREATE TABLE {SOLUTION}.spine AS SELECT i AS id, CAST(DATE '2020-01-01' + to_days(CAST(i AS INTEGER)) AS DATE) AS day, "
            "TIMESTAMPTZ '2020-01-01 12:00:00+00' + to_days(CAST(i AS INTEGER)) AS at_time, 'p' AS place, "
            "1.0::DOUBLE AS distance, 0 AS was_late, "
            "TIMESTAMPTZ '2020-01-01 18:00:00+00' AS known_at FROM range(30) r(i)"
        )
        snapshot = current_snapshot(opened)
        scored = INPUTS.frame_query(first=FIRST, end=day(30), condition="true", labelled=False, snapshot=snapshot)
        opened.execute(
            f"CREATE TABLE {SOLUTION}.predictions AS SELECT 'batch' AS channel, {snapshot} AS _source_snapshot, * FROM ({scored})"
        )
        yield opened


def test_nothing_is_outdated_by_what_predictions_do_not_see(connection: duckdb.DuckDBPyConnection) -> None:
    assert outdated_partitions(connection, INPUTS) == []
    # The outcome, and rows that were loaded again as they were.
    connection.execute(f"UPDATE {SOLUTION}.spine SET was_late = 1")
    connection.execute("CREATE OR REPLACE TEMP TABLE former AS FROM features.load")
    connection.execute("DELETE FROM features.load")
    connection.execute("INSERT INTO features.load SELECT * REPLACE (_loaded_at + INTERVAL 1 DAY AS _loaded_at) FROM former")
    assert outdated_partitions(connection, INPUTS) == []


def test_a_corrected_feature_outdates_the_rows_that_it_is_the_newest_of(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("UPDATE features.load SET waiting = 2 WHERE day = DATE '2020-01-11'")
    # The day after has a newer row of its own, of the same value as before.
    assert outdated_partitions(connection, INPUTS) == [day(10)]
    connection.execute("DELETE FROM features.load WHERE day = DATE '2020-01-12'")
    assert outdated_partitions(connection, INPUTS) == [day(10), day(11)]
    # What was scored from these values, though it may not count, is not outdated.
    snapshot = current_snapshot(connection)
    scored = INPUTS.frame_query(first=day(10), end=day(11), condition="true", labelled=False, snapshot=snapshot)
    connection.execute(
        f"INSERT INTO {SOLUTION}.predictions BY NAME SELECT 'batch' AS channel, {snapshot} AS _source_snapshot, * FROM ({scored})"
    )
    assert outdated_partitions(connection, INPUTS) == [day(11)]


def test_a_late_row_of_the_spine_outdates_its_day_and_a_removed_one_does_not(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(f"INSERT INTO {SOLUTION}.spine SELECT * REPLACE (100 AS id) FROM {SOLUTION}.spine WHERE id = 3")
    connection.execute(f"DELETE FROM {SOLUTION}.spine WHERE id = 20")
    assert outdated_partitions(connection, INPUTS) == [day(3)]


def test_a_row_whose_snapshot_has_expired_is_outdated_when_its_values_differ(connection: duckdb.DuckDBPyConnection) -> None:
    scored = current_snapshot(connection) - 1
    connection.execute("UPDATE features.load SET waiting = 2 WHERE day = DATE '2020-01-11'")
    expired = connection.execute(f"SELECT snapshot_id FROM lake.snapshots() WHERE snapshot_id BETWEEN 1 AND {scored}").fetchall()
    connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{', '.join(str(number) for (number,) in expired)}])")
    assert outdated_partitions(connection, INPUTS) == [day(10)]


def test_adjacent_partitions_are_one_run() -> None:
    assert adjacent_ranges(INPUTS, [day(5), day(3), day(4), day(9)]) == [
        ("2020-01-04", "2020-01-06"),
        ("2020-01-10", "2020-01-10"),
    ]
