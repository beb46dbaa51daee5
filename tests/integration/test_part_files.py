"""Parts that were written into files give the table that queries give, and are taken as they are where DuckLake can."""

from collections.abc import Callable, Sequence
from datetime import date

import duckdb
import pytest

from mlops_assets.lake.catalog_files import named_files
from mlops_assets.lake.lake import Lake, WriteResult
from mlops_assets.lake.part_files import PartFiles, PartTarget, part_target, write_part
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.tables import LakeError, counted_fingerprint, current_snapshot

DAYS = PartitionRange("day", date(2020, 1, 1), date(2020, 1, 5))


def day(number: int, columns: str = "range AS id, range / 3 AS value, 'é' AS text") -> str:
    return f"SELECT DATE '2020-01-0{number}' AS day, {columns} FROM range({number} * 100, {number} * 100 + 100)"


@pytest.fixture(scope="module")
def lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


def target_of(lake: Lake, connection: duckdb.DuckDBPyConnection, table: str) -> PartTarget:
    return part_target(connection, table=table, data_path=lake.data_path, partition_range=DAYS, uncounted=None, counted="true")


def write(lake: Lake, table: str, queries: Sequence[str]) -> WriteResult:
    """Replace the range by the rows of files, one for each query."""
    with lake.connect(read_only=False) as connection:
        target = target_of(lake, connection, table)
        files = PartFiles(target, [write_part(connection, target, query) for query in queries])
        return lake.replace(connection, table=table, query=files, partition_range=DAYS, author="test")


def by_queries(lake: Lake, table: str, queries: Sequence[str]) -> WriteResult:
    with lake.connect(read_only=False) as connection:
        return lake.replace(connection, table=table, query=iter(queries), partition_range=DAYS, author="test")


def files_of(lake: Lake, table: str) -> tuple[set[str], set[str]]:
    """The files of parts that are in the lake's folder, and those of them that its catalog names for `table`."""
    with lake.catalog_cursor() as cursor:
        named = {name for name in named_files(cursor) if name.startswith(f"{table.replace('.', '/')}/part-")}
    present = {path.relative_to(lake.data_directory).as_posix() for path in lake.data_directory.rglob("part-*.parquet")}
    return present, named


def content(lake: Lake, table: str) -> tuple[int, str]:
    with lake.connect(read_only=True) as connection:
        return counted_fingerprint(connection, f"lake.{table}")


def test_a_write_of_several_files_is_one_snapshot_and_the_files_are_the_tables(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS lake.s")
        before = current_snapshot(connection)
    made = write(lake, "s.parts", [day(1), day(2), day(3)])
    expected = by_queries(lake, "s.queries", [day(1), day(2), day(3)])
    assert (made.fingerprint, made.rows_by_partition) == (expected.fingerprint, expected.rows_by_partition)
    assert made.hashes_by_partition == expected.hashes_by_partition
    assert made.snapshot == before + 1
    present, named = files_of(lake, "s.parts")
    assert len(named) == 3
    assert present == named
    assert content(lake, "s.parts") == content(lake, "s.queries") == (300, made.fingerprint)

    # The same again changes nothing and leaves no file; another day replaces all four in one transaction.
    again = write(lake, "s.parts", [day(1), day(2), day(3)])
    assert (again.changed, again.snapshot) == (False, expected.snapshot)
    assert files_of(lake, "s.parts") == (named, named)
    replaced = write(lake, "s.parts", [day(4)])
    assert content(lake, "s.parts") == (100, replaced.fingerprint)
    assert replaced.snapshot == expected.snapshot + 1


def test_partitions_that_are_as_before_stay_and_the_others_are_copied(lake: Lake) -> None:
    write(lake, "s.some", [day(1), day(2)])
    _, before = files_of(lake, "s.some")
    made = write(lake, "s.some", [day(1), day(2, "range + 1 AS id, 0.5::double AS value, 'x' AS text")])
    assert made.changed
    present, named = files_of(lake, "s.some")
    assert named == before
    assert not {name for name in present - named if name.startswith("s/some/")}
    assert content(lake, "s.some") == (200, made.fingerprint)


@pytest.mark.parametrize(
    "columns",
    [
        "range::HUGEINT * 100000000000000000001 AS id",
        "'12:30:00+02'::TIMETZ AS id",
        "TIMESTAMP_S '2020-01-01 00:00:01' AS id, 'nan'::DOUBLE AS value, -0.0::FLOAT AS zero, NULL::UUID AS nothing",
        "[1, NULL, range] AS id, {'a': 'b', 'c': range} AS pair, MAP {'k': 1.25::DECIMAL(18, 3)} AS maps",
    ],
)
def test_values_of_every_type_are_those_of_a_query(lake: Lake, columns: str) -> None:
    queries = [day(1, columns), day(2, columns)]
    table = f"s.types_{abs(hash(columns))}"
    assert write(lake, table, queries).fingerprint == by_queries(lake, f"{table}_queries", queries).fingerprint
    assert content(lake, table) == content(lake, f"{table}_queries")


@pytest.mark.long
def test_a_table_that_files_cannot_join_gets_their_rows(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        connection.execute(
            "CREATE SCHEMA IF NOT EXISTS lake.s; CREATE TABLE lake.s.split (day DATE, id BIGINT, value DOUBLE, text VARCHAR)"
        )
        connection.execute("ALTER TABLE lake.s.split SET PARTITIONED BY (day)")
    for table in ("s.split", "s.Odd name", "s.later"):
        write(lake, table, [day(1)])
    # A new column, and one that becomes wider.
    write(lake, "s.later", [day(2, "range::HUGEINT AS id, 1.5::double AS value, 'x' AS text, 7 AS further")])
    for table, rows in (("s.split", 100), ("s.Odd name", 100), ("s.later", 100)):
        with lake.connect(read_only=True) as connection:
            schema, _, name = table.partition(".")
            assert connection.execute(f'SELECT count(*) FROM lake.{schema}."{name}"').fetchall() == [(rows,)]
    assert files_of(lake, "s.split")[1] == set()


def test_a_table_that_changed_since_the_files_were_written_is_what_counts(lake: Lake) -> None:
    by_queries(lake, "s.moved", [day(1, "range::INTEGER AS id")])
    with lake.connect(read_only=False) as connection:
        target = target_of(lake, connection, "s.moved")
        files = PartFiles(target, [write_part(connection, target, day(number, "range::INTEGER AS id")) for number in (1, 2)])
        connection.execute("ALTER TABLE lake.s.moved ALTER COLUMN id SET DATA TYPE BIGINT")
        made = lake.replace(connection, table="s.moved", query=files, partition_range=DAYS, author="test")
    wide = [day(number, "range AS id") for number in (1, 2)]
    assert made.fingerprint == by_queries(lake, "s.moved_queries", wide).fingerprint
    assert content(lake, "s.moved") == (200, made.fingerprint)


def test_rows_outside_the_range_are_refused(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        target = target_of(lake, connection, "s.outside")
        with pytest.raises(LakeError, match=r"100 rows for s\.outside lie outside"):
            write_part(connection, target, day(7))
