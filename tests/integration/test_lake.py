"""The lake on a real Postgres: transactional and idempotent replacement, locks across processes, readers beside writers."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import duckdb
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.lake.lake import Lake, WriteResult
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import literal
from mlops_assets.lake.tables import LakeError, fingerprint

FIRST = date(2020, 1, 1)
SPAWN = multiprocessing.get_context("spawn")

MakeLake = Callable[[], Lake]
Row = tuple[int, str | None]


@pytest.fixture(scope="module")
def lake(make_lake: MakeLake) -> Lake:
    return make_lake()


@pytest.fixture(scope="module")
def connection(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with lake.connect(read_only=False) as opened:
        yield opened


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def days(start: int, end: int) -> PartitionRange:
    return PartitionRange(column="day", start=day(start), end=day(end))


def rows_query(rows: list[tuple[int, Row]], loaded_at: int = 0) -> str:
    """SQL for rows of (day number, (id, text)); `loaded_at` is an audit column."""
    values = [
        f"(DATE '{day(number)}', {identifier}, {'NULL' if text is None else literal(text)}, {loaded_at})"
        for number, (identifier, text) in rows
    ] or ["(NULL, NULL, NULL, NULL)"]
    where = "" if rows else " WHERE false"
    return (
        "SELECT day::DATE AS day, id::INTEGER AS id, text::VARCHAR AS text, loaded::INTEGER AS _loaded_at "
        f"FROM (VALUES {', '.join(values)}) r(day, id, text, loaded){where}"
    )


def content(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[object, ...]]:
    return connection.execute(f"SELECT day, id, text, _loaded_at FROM lake.{table} ORDER BY ALL").fetchall()


def replace(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    table: str,
    rows: list[tuple[int, Row]],
    within: PartitionRange | None,
    loaded_at: int = 0,
) -> WriteResult:
    return lake.replace(connection, table=table, query=rows_query(rows, loaded_at), partition_range=within, author="test")


def test_a_second_run_changes_nothing(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    rows: list[tuple[int, Row]] = [(0, (1, "a")), (1, (2, None))]
    first = replace(lake, connection, "idempotent.t", rows, days(0, 2))
    second = replace(lake, connection, "idempotent.t", list(reversed(rows)), days(0, 2), loaded_at=7)
    assert first.changed
    assert not second.changed
    assert second.snapshot == first.snapshot
    assert second.fingerprint == first.fingerprint
    assert second.rows_by_partition == {str(day(0)): 1, str(day(1)): 1}
    assert [row[3] for row in content(connection, "idempotent.t")] == [0, 0]


def test_only_partitions_that_differ_are_rewritten(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "partial.t", [(0, (1, "a")), (1, (2, "b")), (2, (3, "c")), (3, (4, "d"))], days(0, 4))
    # Day 0 stays, day 1 differs, day 2 has no rows any more, day 3 is outside the range.
    written = replace(lake, connection, "partial.t", [(0, (1, "a")), (1, (2, "B"))], days(0, 3), loaded_at=1)
    assert written.changed
    assert written.rows == 2
    assert content(connection, "partial.t") == [(day(0), 1, "a", 0), (day(1), 2, "B", 1), (day(3), 4, "d", 0)]


def test_a_write_is_one_snapshot_with_its_author(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    first = replace(lake, connection, "snapshots.t", [(0, (1, "a"))], days(0, 1))
    second = replace(lake, connection, "snapshots.t", [(0, (1, "b"))], days(0, 1))
    assert second.snapshot == first.snapshot + 1
    changes = connection.execute("SELECT author FROM lake.snapshots() WHERE snapshot_id = ?", [second.snapshot]).fetchall()
    assert changes == [("test",)]
    before = connection.execute("SELECT text FROM snapshots.t AT (VERSION => ?)", [first.snapshot]).fetchall()
    assert before == [("a",)]


def test_rows_without_a_partition_are_replaced_only_when_asked(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT NULL::DATE AS day, 1 AS id UNION ALL SELECT DATE '2020-01-01', 2"
    with_null = PartitionRange(column="day", start=day(0), end=day(1), include_null=True)
    assert lake.replace(connection, table="nulls.t", query=query, partition_range=with_null, author="test").rows == 2
    again = lake.replace(connection, table="nulls.t", query=query, partition_range=with_null, author="test")
    assert not again.changed
    with pytest.raises(LakeError, match=r"1 rows for nulls\.t lie outside"):
        lake.replace(connection, table="nulls.t", query=query, partition_range=days(0, 1), author="test")


def test_rows_outside_the_range_are_refused(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "outside.t", [(0, (1, "a"))], days(0, 1))
    with pytest.raises(LakeError, match=r"1 rows for outside\.t lie outside"):
        replace(lake, connection, "outside.t", [(0, (1, "b")), (1, (2, "c"))], days(0, 1))
    assert content(connection, "outside.t") == [(day(0), 1, "a", 0)]


def test_a_refused_first_write_leaves_no_table(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(LakeError):
        replace(lake, connection, "refused.t", [(9, (1, "a"))], days(0, 1))
    assert connection.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'refused'").fetchall() == [(0,)]


def test_a_failing_query_leaves_the_table_and_the_connection_usable(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    first = replace(lake, connection, "failing.t", [(0, (1, "a"))], days(0, 1))
    with pytest.raises(duckdb.ConversionException):
        lake.replace(
            connection, table="failing.t", query="SELECT CAST('x' AS DATE) AS day", partition_range=days(0, 1), author="test"
        )
    assert content(connection, "failing.t") == [(day(0), 1, "a", 0)]
    assert replace(lake, connection, "failing.t", [(0, (1, "a"))], days(0, 1)).snapshot == first.snapshot


def test_a_new_column_is_added_with_nulls_in_older_rows(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "columns.t", [(0, (1, "a")), (1, (2, "b"))], days(0, 2))
    query = f"SELECT *, id * 1.5::DOUBLE AS score FROM ({rows_query([(1, (2, 'b'))])})"
    assert lake.replace(connection, table="columns.t", query=query, partition_range=days(1, 2), author="test").changed
    assert connection.execute("SELECT id, score FROM columns.t ORDER BY id").fetchall() == [(1, None), (2, 3.0)]


@pytest.mark.parametrize(
    ("narrow", "wide", "value", "wider_value"),
    [
        ("INTEGER", "BIGINT", "-7", "3000000000"),
        ("FLOAT", "DOUBLE", "1.5", "0.1"),
        ("INTEGER", "DOUBLE", "-7", "2.5"),
        ("DATE", "TIMESTAMP", "DATE '2020-01-01'", "TIMESTAMP '2020-01-01 10:00:00'"),
    ],
)
def test_a_column_is_widened_by_itself_and_that_is_recorded(
    lake: Lake, connection: duckdb.DuckDBPyConnection, narrow: str, wide: str, value: str, wider_value: str
) -> None:
    table = f"widened.{narrow}_{wide}".lower()

    def write(number: int, kind: str, text: str) -> WriteResult:
        query = f"SELECT DATE '{day(number)}' AS day, ({text})::{kind} AS a"
        return lake.replace(connection, table=table, query=query, partition_range=days(number, number + 1), author="test")

    first = write(0, narrow, value)
    written = write(1, wide, wider_value)
    assert [str(change) for change in written.schema_changes] == [f"a {narrow} -> {wide}"]
    assert connection.execute(f"SELECT typeof(a), a = ({value}) FROM {table} ORDER BY day").fetchall()[0] == (wide, True)
    assert connection.execute(f"SELECT a = ({wider_value})::{wide} FROM {table} WHERE day = '{day(1)}'").fetchall() == [(True,)]
    assert connection.execute(f"SELECT typeof(a) FROM {table} AT (VERSION => {first.snapshot})").fetchall() == [(narrow,)]
    [(recorded,)] = connection.execute(
        "SELECT commit_extra_info FROM lake.snapshots() WHERE snapshot_id = ?", [written.snapshot]
    ).fetchall()
    assert f"a {narrow} -> {wide}" in recorded
    # Whoever still writes the narrower type changes nothing, and equal rows are found to be equal.
    assert not write(0, narrow, value).changed
    assert not write(0, wide, value).changed


def test_a_widened_column_alone_rewrites_no_rows(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "only_wider.t", [(0, (-1, "a"))], days(0, 1))
    query = f"SELECT * REPLACE (id::BIGINT AS id) FROM ({rows_query([(0, (-1, 'a'))], loaded_at=5)})"
    written = lake.replace(connection, table="only_wider.t", query=query, partition_range=days(0, 1), author="test")
    assert not written.changed
    assert [str(change) for change in written.schema_changes] == ["id INTEGER -> BIGINT"]
    assert content(connection, "only_wider.t") == [(day(0), -1, "a", 0)]


def test_a_change_of_type_that_could_lose_values_is_refused(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "changed.t", [(0, (1, "a"))], days(0, 1))
    query = "SELECT DATE '2020-01-01' AS day, 'x' AS id, 'a' AS text, 0 AS _loaded_at"
    with pytest.raises(
        LakeError, match=r"column id is INTEGER and would become VARCHAR.*`mlops schema plan changed\.t --type id=VAR"
    ):
        lake.replace(connection, table="changed.t", query=query, partition_range=days(0, 1), author="test")
    assert content(connection, "changed.t") == [(day(0), 1, "a", 0)]
    with pytest.raises(LakeError, match="text is VARCHAR and would become INTEGER"):
        lake.append(connection, table="changed.t", query="SELECT 2 AS id, 3 AS text", identifier="id", author="test")


def test_an_appended_column_is_widened_too_and_every_row_has_an_identifier(
    lake: Lake, connection: duckdb.DuckDBPyConnection
) -> None:
    lake.append(connection, table="appended.t", query="SELECT 1 AS id, 5 AS amount", identifier="id", author="test")
    appended = lake.append(
        connection, table="appended.t", query="SELECT 2 AS id, 5000000000 AS amount", identifier="id", author="test"
    )
    assert [str(change) for change in appended.schema_changes] == ["amount INTEGER -> BIGINT"]
    with pytest.raises(LakeError, match=r"1 rows for appended\.t have no id"):
        lake.append(
            connection, table="appended.t", query="SELECT NULL::INTEGER AS id, 1 AS amount", identifier="id", author="test"
        )
    assert connection.execute("FROM appended.t ORDER BY id").fetchall() == [(1, 5), (2, 5000000000)]


def test_a_column_of_the_data_that_begins_with_an_underscore_counts(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    def write(score: int, loaded_at: int) -> WriteResult:
        query = f"SELECT DATE '2020-01-01' AS day, 1 AS id, {score} AS _score, {loaded_at} AS _loaded_at"
        return lake.replace(connection, table="underscore.t", query=query, partition_range=days(0, 1), author="test")

    first = write(1, loaded_at=0)
    assert not write(1, loaded_at=1).changed
    corrected = write(2, loaded_at=2)
    assert corrected.changed
    assert corrected.fingerprint != first.fingerprint
    assert connection.execute("SELECT _score FROM underscore.t").fetchall() == [(2,)]
    assert fingerprint(connection, "lake.underscore.t") == corrected.fingerprint


def test_a_name_in_another_case_is_the_same_column(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "case_of.t", [(0, (1, "a"))], days(0, 1))
    query = f'SELECT day, id AS "ID", text, _loaded_at FROM ({rows_query([(0, (2, "a"))])})'
    assert lake.replace(connection, table="case_of.t", query=query, partition_range=days(0, 1), author="test").changed
    assert content(connection, "case_of.t") == [(day(0), 2, "a", 0)]


def test_a_column_that_is_not_given_any_more_becomes_null(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "dropped.t", [(0, (1, "a")), (1, (2, "b"))], days(0, 2))
    query = "SELECT DATE '2020-01-01' AS day, 1 AS id, 0 AS _loaded_at"
    assert lake.replace(connection, table="dropped.t", query=query, partition_range=days(0, 1), author="test").changed
    assert content(connection, "dropped.t") == [(day(0), 1, None, 0), (day(1), 2, "b", 0)]
    assert not lake.replace(connection, table="dropped.t", query=query, partition_range=days(0, 1), author="test").changed


def test_the_fingerprint_ignores_order_and_audit_columns_and_nothing_else(connection: duckdb.DuckDBPyConnection) -> None:
    def of(values: str) -> str:
        return fingerprint(connection, f"(SELECT * FROM (VALUES {values}) r(a, b, _loaded_at))")

    reference = of("(1, 'x', 1), (2, 'y', 1), (2, 'y', 1)")
    assert of("(2, 'y', 2), (1, 'x', 3), (2, 'y', 4)") == reference
    assert of("(1, 'x', 1), (2, 'y', 1)") != reference
    assert of("(1, 'x', 1), (2, 'Y', 1), (2, 'y', 1)") != reference
    # A DuckDB that hashes differently cannot prove the datasets recorded before it: an upgrade must not go unnoticed.
    assert reference == "f2162a7ee312f115"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(NULL, 'a')", "('NULL', 'a')"),
        ("('a, b', 'c')", "('a', 'b, c')"),
        ("('', 'a')", "(NULL, 'a')"),
        ("('it''s', '\\')", "('it', 's\\')"),
    ],
)
def test_different_rows_of_strings_have_different_fingerprints(
    connection: duckdb.DuckDBPyConnection, left: str, right: str
) -> None:
    found = {fingerprint(connection, f"(SELECT * FROM (VALUES {values}) r(a, b))") for values in (left, right)}
    assert len(found) == 2


def test_hostile_names_and_strings(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    query = """SELECT DATE '2020-01-01' AS "da""y", 'it''s; DROP TABLE x; --' AS "se'lect", 'ünï\n€' AS "from" """
    within = PartitionRange(column='da"y', start=day(0), end=day(1))
    for _ in range(2):
        lake.replace(connection, table="hostile.it's", query=query, partition_range=within, author="O'Hara")
    found = connection.execute('FROM hostile."it\'s"').fetchall()
    assert found == [(day(0), "it's; DROP TABLE x; --", "ünï\n€")]


def test_a_catalog_address_with_quotes_and_blanks(lake: Lake) -> None:
    # libpq quotes a value with blanks: this is what a state folder with a blank in its name gives.
    quoted = Lake(
        catalog=f"{lake.catalog} application_name='my \\'lake\\''",
        data_directory=lake.data_directory,
        extension_directory=lake.extension_directory,
    )
    with quoted.connect(read_only=True) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_an_unreachable_catalog_says_what_to_do(lake: Lake, tmp_path: Path) -> None:
    unreachable = Lake(
        catalog=f"dbname=lake user=postgres host={tmp_path}",
        data_directory=lake.data_directory,
        extension_directory=lake.extension_directory,
    )
    with pytest.raises(LakeError, match="mlops up"):
        unreachable.connect(read_only=True)


def test_without_extensions_the_remedy_is_named(lake: Lake, tmp_path: Path) -> None:
    bare = Lake(catalog=lake.catalog, data_directory=lake.data_directory, extension_directory=tmp_path / "none")
    with pytest.raises(LakeError, match="mlops prepare"):
        bare.connect(read_only=True)


def test_a_read_only_connection_cannot_write(lake: Lake) -> None:
    with lake.connect(read_only=True) as reader, pytest.raises(duckdb.Error, match="read-only"):
        reader.execute("CREATE TABLE main.t (a INTEGER)")


Model = dict[int, list[Row]]
text = st.none() | st.text(alphabet="ab'\", NUL\n€", max_size=3)
partition_rows = st.lists(st.tuples(st.integers(0, 2), text), max_size=3)
operation = st.tuples(st.integers(0, 2), st.integers(1, 3), st.dictionaries(st.integers(0, 2), partition_rows))


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(operation, min_size=1, max_size=4))
def test_replace_is_assignment_to_partitions(
    lake: Lake, connection: duckdb.DuckDBPyConnection, operations: list[tuple[int, int, Model]]
) -> None:
    model: Model = {}
    connection.execute("DROP TABLE IF EXISTS lake.model.t")
    for start, length, given_rows in operations:
        end = start + length
        rows = {number: found for number, found in given_rows.items() if start <= number < end}
        expected = {
            **{number: found for number, found in model.items() if not start <= number < end},
            **{number: found for number, found in rows.items() if found},
        }
        written = replace(
            lake, connection, "model.t", [(number, row) for number, found in rows.items() for row in found], days(start, end)
        )
        assert written.changed == (sorted_model(expected) != sorted_model(model))
        model = expected
        found = connection.execute("SELECT day, id, text FROM lake.model.t").fetchall()
        assert sorted(found, key=repr) == sorted(
            ((day(number), *row) for number, rows_of_day in model.items() for row in rows_of_day), key=repr
        )


def sorted_model(model: Model) -> Model:
    return {number: sorted(model[number], key=repr) for number in sorted(model)}


def write_same_partitions(lake: Lake, barrier: Barrier, rounds: int) -> None:
    with lake.connect(read_only=False) as connection:
        for number in range(rounds):
            barrier.wait()
            replace(lake, connection, "race.t", [(number, (1, "a")), (number, (2, "b"))], days(number, number + 1), os.getpid())


def append_commits(lake: Lake, barrier: Barrier, writer: int, commits: int) -> None:
    with lake.connect(read_only=False) as connection:
        barrier.wait()
        for number in range(commits):
            position = writer * commits + number
            replace(lake, connection, "many.t", [(position, (position, "a"))], days(position, position + 1))


def lock_in_order(lake: Lake, barrier: Barrier, tables: list[str], rounds: int) -> None:
    for _ in range(rounds):
        barrier.wait()
        with lake.writer_lock(tables):
            time.sleep(0.005)


def hold_lock_in_a_transaction(lake: Lake, held: Event) -> None:
    with lake.connect(read_only=False) as connection, lake.writer_lock(["beside.t"]):
        connection.execute("BEGIN")
        connection.execute("DELETE FROM beside.t")
        held.set()
        time.sleep(600)


def run_all(processes: list[multiprocessing.context.SpawnProcess]) -> None:
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.long
def test_two_processes_that_write_the_same_new_partition_leave_it_once(make_lake: MakeLake) -> None:
    lake = make_lake()
    # The table is there before: what races is deleting nothing and inserting, as in ducklake#1393.
    with lake.connect(read_only=False) as connection:
        replace(lake, connection, "race.t", [], days(0, 1))
    rounds = 25
    barrier = SPAWN.Barrier(2, timeout=60)
    run_all([SPAWN.Process(target=write_same_partitions, args=(lake, barrier, rounds)) for _ in range(2)])
    with lake.connect(read_only=True) as connection:
        found = connection.execute("SELECT day, id, text FROM race.t ORDER BY ALL").fetchall()
        writers = connection.execute(
            "SELECT max(n) FROM (SELECT count(DISTINCT _loaded_at) n FROM race.t GROUP BY day)"
        ).fetchall()
    assert found == [(day(number), *row) for number in range(rounds) for row in ((1, "a"), (2, "b"))]
    assert writers == [(1,)]


@pytest.mark.long
def test_four_processes_that_commit_to_one_table_lose_nothing(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.connect(read_only=False).close()
    writers, commits = 4, 10
    barrier = SPAWN.Barrier(writers, timeout=60)
    run_all([SPAWN.Process(target=append_commits, args=(lake, barrier, writer, commits)) for writer in range(writers)])
    with lake.connect(read_only=True) as connection:
        found = connection.execute("SELECT id FROM many.t ORDER BY id").fetchall()
    assert found == [(number,) for number in range(writers * commits)]


def test_locks_taken_in_different_order_do_not_deadlock(lake: Lake) -> None:
    barrier = SPAWN.Barrier(2, timeout=60)
    orders = (["order.a", "order.b", "order.a"], ["order.b", "order.a"])
    run_all([SPAWN.Process(target=lock_in_order, args=(lake, barrier, tables, 40)) for tables in orders])


def test_readers_work_beside_a_writer_and_a_killed_writer_gives_way(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    replace(lake, connection, "beside.t", [(0, (1, "a"))], days(0, 1))
    held = SPAWN.Event()
    writer = SPAWN.Process(target=hold_lock_in_a_transaction, args=(lake, held))
    writer.start()
    try:
        assert held.wait(60)
        started = time.monotonic()
        with lake.connect(read_only=True) as reader:
            assert content(reader, "beside.t") == [(day(0), 1, "a", 0)]
        assert time.monotonic() - started < 10
        waiting = SPAWN.Process(target=append_beside, args=(lake,))
        waiting.start()
        waiting.join(3)
        assert waiting.is_alive(), "a second writer must wait for the lock"
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        waiting.join(30)
        assert waiting.exitcode == 0
    finally:
        writer.kill()
        writer.join()
    assert content(connection, "beside.t") == [(day(0), 1, "a", 0), (day(1), 2, "b", 0)]


def append_beside(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        replace(lake, connection, "beside.t", [(1, (2, "b"))], days(1, 2))
