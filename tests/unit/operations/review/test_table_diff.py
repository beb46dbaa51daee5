"""Rows before and after a change, compared by key and by column."""

from collections.abc import Iterator

import duckdb
import pytest

from mlops_assets.operations.review.table_diff import TableDiff, compare_tables


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def _compare(connection: duckdb.DuckDBPyConnection, before: str, after: str, *keys: list[str]) -> TableDiff:
    return compare_tables(connection, table="shop.orders", before=before, after=after, keys=keys)


ORDERS = "SELECT i AS id, i * 2.5 AS amount, i % 3 = 0 AS late, 'x' AS note, now() AS _loaded_at FROM range(100) r(i)"


def test_equal_rows_do_not_differ_whenever_they_were_loaded(connection: duckdb.DuckDBPyConnection) -> None:
    diff = _compare(connection, ORDERS, ORDERS.replace("now()", "now() + INTERVAL 1 DAY"), ["id"])
    assert not diff.differs
    assert (diff.key, diff.rows_before, diff.rows_after) == (("id",), 100, 100)


def test_rows_that_come_and_go_and_values_that_change(connection: duckdb.DuckDBPyConnection) -> None:
    after = ORDERS.replace("range(100)", "range(5, 103)").replace("i % 3 = 0", "i % 3 = 0 OR i = 50")
    diff = _compare(connection, ORDERS, after, ["id"])
    assert (diff.added, diff.removed, diff.changed) == (3, 5, 1)
    changed = {column.name: column for column in diff.columns if column.changed}
    assert list(changed) == ["late"]
    assert changed["late"].examples == ("50: false → true",)


def test_null_is_a_value_and_equals_null(connection: duckdb.DuckDBPyConnection) -> None:
    diff = _compare(
        connection,
        "SELECT 1 AS id, NULL::INTEGER AS v UNION ALL SELECT NULL, 4",
        "SELECT 1 AS id, 2 AS v UNION ALL SELECT NULL, 4",
        ["id"],
    )
    assert (diff.added, diff.removed, diff.changed) == (0, 0, 1)
    [column] = [column for column in diff.columns if column.name == "v"]
    assert column.before is not None
    assert column.before.null_share == 0.5
    assert column.examples == ("1: null → 2",)


def test_a_renamed_column_is_found_by_its_values(connection: duckdb.DuckDBPyConnection) -> None:
    renamed = _compare(connection, ORDERS, ORDERS.replace("AS amount", "AS price"), ["id"])
    assert (renamed.renamed, renamed.changed) == ((("amount", "price"),), 0)
    other = _compare(connection, ORDERS, ORDERS.replace("2.5 AS amount", "2.6 AS price"), ["id"])
    assert other.renamed == ()
    retyped = _compare(connection, ORDERS, ORDERS.replace("i * 2.5 AS amount", "(i * 2.5)::FLOAT AS price"), ["id"])
    assert retyped.renamed == ()


def test_without_a_key_only_statistics_are_compared(connection: duckdb.DuckDBPyConnection) -> None:
    diff = _compare(connection, ORDERS, ORDERS.replace("range(100)", "range(50)"), ["note"], ["missing"])
    assert (diff.key, diff.added, diff.rows_after) == ((), None, 50)
    means = {column.name: (column.before and column.before.mean, column.after and column.after.mean) for column in diff.columns}
    assert means["amount"] == (123.75, 61.25)
    assert diff.differs
