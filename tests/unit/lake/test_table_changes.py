"""Changes of tables of a real lake, by whatever statements, with whatever columns."""

from collections import Counter
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_in_folder import lake_in_folder

from mlops_assets.lake.table_changes import CHANGE, changes_query, newest_change
from mlops_assets.lake.tables import current_snapshot

VALUES = st.integers(0, 3)
STATEMENTS = st.lists(
    st.one_of(
        st.builds("INSERT INTO shop.orders VALUES ({0}, {1}, 'x')".format, VALUES, VALUES),
        st.builds("DELETE FROM shop.orders WHERE rowid = {0}".format, VALUES),
        st.builds("UPDATE shop.orders SET change_type = {0} WHERE rowid = {1}".format, VALUES, VALUES),
        st.builds("BEGIN; DELETE FROM shop.orders; INSERT INTO shop.orders VALUES ({0}, 9, 'y'); COMMIT".format, VALUES),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture
def lake(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    connection = lake_in_folder(tmp_path)
    # The names are those that DuckLake gives to columns of its own.
    connection.execute('CREATE SCHEMA shop; CREATE TABLE shop.orders (rowid INTEGER, change_type INTEGER, "Übrig" VARCHAR)')
    return connection


def rows(connection: duckdb.DuckDBPyConnection) -> Counter:
    return Counter(connection.execute('SELECT rowid, change_type, "Übrig" FROM shop.orders').fetchall())


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STATEMENTS)
def test_what_was_there_with_its_changes_is_what_is_there(lake: duckdb.DuckDBPyConnection, statements: list[str]) -> None:
    before, snapshot = rows(lake), current_snapshot(lake)
    for statement in statements:
        lake.execute(statement)
    if current_snapshot(lake) == snapshot:
        return
    query = changes_query("shop.orders", first=snapshot + 1, last=current_snapshot(lake))
    for *row, change in lake.execute(f'SELECT rowid, change_type, "Übrig", {CHANGE} FROM ({query})').fetchall():
        before[tuple(row)] += change
    assert {row: count for row, count in before.items() if count} == dict(rows(lake))


def test_the_newest_change_is_that_of_the_named_tables(lake: duckdb.DuckDBPyConnection) -> None:
    created = newest_change(lake, ["shop.orders"])
    lake.execute("CREATE TABLE shop.parcels AS SELECT 1 AS number")
    assert newest_change(lake, ["shop.orders"]) == created
    assert newest_change(lake, ["shop.parcels"]) == newest_change(lake, ["shop.parcels", "shop.orders"]) == current_snapshot(lake)
    lake.execute("INSERT INTO shop.orders VALUES (1, 1, 'z')")
    assert newest_change(lake, ["shop.orders"]) == current_snapshot(lake) > (newest_change(lake, ["shop.parcels"]) or 0)
    lake.execute("DELETE FROM shop.parcels")
    assert newest_change(lake, ["shop.parcels"]) == current_snapshot(lake)


def test_what_is_no_table_has_no_newest_change(lake: duckdb.DuckDBPyConnection) -> None:
    lake.execute("CREATE VIEW shop.expensive AS FROM shop.orders")
    assert newest_change(lake, ["shop.expensive"]) is None
    assert newest_change(lake, ["shop.orders", "shop.expensive"]) is None
    assert newest_change(lake, ["shop.nowhere"]) is None
    assert newest_change(lake, ["shop.o'brien; DROP TABLE shop.orders"]) is None
    lake.execute("DROP TABLE shop.orders")
    assert newest_change(lake, ["shop.orders"]) is None
