"""The lake: DuckLake tables with their catalog in Postgres and their Parquet files in one folder.

Connections, locks and writes belong here; what the tables mean does not. A Dagster asset takes it as `dg.ResourceParam[Lake]`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings

MEMORY_LIMIT = "3GB"
"""What one connection may hold in memory; joins and sorts of more go to disk, so that several processes fit on one machine."""

AUDIT_PREFIX = "_"
"""Columns that start with this say how a row got here; they do not count when two versions of a row are compared."""

_STAGED = "temp.main.staged_rows"
_ROW_HASH = "_staged_row_hash"


class LakeError(Exception):
    """The lake cannot do what was asked; the message says what to change."""


@dataclass(frozen=True)
class PartitionRange:
    """The half-open range `[start, end)` of the DATE column `column` that one write replaces.

    With `include_null`, rows that have no partition are replaced too. With `only`, a column, its value and the value that null stands
    for there, rows that have another value are no part of the range: somebody else writes them.
    """

    column: str
    start: date
    end: date
    include_null: bool = False
    only: tuple[str, str, str] | None = None

    def predicate(self, alias: str) -> str:
        """SQL that is true for the rows of table `alias` inside the range."""
        column = f"{alias}.{quote(self.column)}"
        inside = f"({column} >= DATE '{self.start}' AND {column} < DATE '{self.end}')"
        if self.include_null:
            inside = f"({inside} OR {column} IS NULL)"
        if self.only is None:
            return inside
        kind, value, unset = self.only
        # Rows from before the column was there are those of its first writer.
        return f"({inside} AND coalesce({alias}.{quote(kind)}, {literal(unset)}) = {literal(value)})"


@dataclass(frozen=True)
class Written:
    """What one write left: the snapshot that holds it, its rows, and whether anything differed from what was there.

    `fingerprint` identifies the content without the audit columns and independent of row order.
    """

    table: str
    snapshot: int
    rows: int
    rows_by_partition: Mapping[str, int]
    changed: bool
    fingerprint: str


@dataclass(frozen=True)
class Appended:
    """What one append left: the snapshot that holds it, the rows that were new, and those that were there already."""

    table: str
    snapshot: int
    rows: int
    duplicates: int


@dataclass(frozen=True)
class Lake:
    """Address of one lake: libpq string of the catalog database, data folder, folder of the DuckDB extensions."""

    catalog: str
    data_directory: Path
    extension_directory: Path

    @classmethod
    def from_settings(cls, settings: Settings) -> "Lake":
        """The lake of this installation."""
        return cls(
            catalog=settings.postgres_connection_string(LAKE_DATABASE),
            data_directory=settings.lake_directory,
            extension_directory=DUCKDB_EXTENSION_DIRECTORY,
        )

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection whose default catalog is the lake, in UTC. Close it, or use it in a `with` statement.

        Any number of connections of any number of processes read and write at once. Raises LakeError when the extensions are not
        installed or the catalog cannot be reached.
        """
        if not self.extension_directory.is_dir():
            raise LakeError(f"No DuckDB extensions in {self.extension_directory}: run `mlops prepare` once.")
        connection = duckdb.connect(
            config={
                "extension_directory": str(self.extension_directory),
                "autoinstall_known_extensions": False,
                "memory_limit": MEMORY_LIMIT,
                # DuckDB's own choice is the working directory.
                "temp_directory": str(self.data_directory.parent / "duckdb_spill"),
            }
        )
        mode = ", READ_ONLY" if read_only else ""
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(
                f"ATTACH {literal('ducklake:postgres:' + self.catalog)} AS lake "
                f"(DATA_PATH {literal(str(self.data_directory) + '/')}{mode})"
            )
            connection.execute("USE lake")
        except duckdb.Error as error:
            connection.close()
            raise LakeError(
                f"The lake's catalog cannot be opened: {error} Is Postgres running? `mlops up` starts it, `mlops status` shows it."
            ) from error
        return connection

    @contextmanager
    def writer_lock(self, tables: Sequence[str]) -> Iterator[None]:
        """Hold the right to write `tables` (each `schema.table`) against every other process, waiting for it as long as needed.

        Postgres advisory locks in one order for all, so that two holders of several tables cannot wait for each other. The
        server releases them when the process dies. Needed because two DuckLake transactions that each delete nothing and insert
        the same rows both commit (duckdb/ducklake#1393), and because commits to one table conflict.
        """
        import psycopg2

        connection = psycopg2.connect(self.catalog)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for table in sorted(set(tables)):
                    cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"lake:{table}",))
            yield
        finally:
            connection.close()

    def replace(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        table: str,
        query: str | Iterable[str],
        partition_range: PartitionRange | None,
        author: str,
        information: Mapping[str, Any] | None = None,
    ) -> Written:
        """Make the rows of `table` (in `partition_range`, or all) equal to the rows of `query`, in one transaction.

        Several queries, which have the same columns, are run one after another, each before the next is asked for.

        Creates the schema and table, and adds columns that are new in `query` (null in older rows); columns that `query` lacks
        are null in the new rows. Partitions whose rows are already there are left as they are, so that a second run changes
        nothing. `author` and `information` are recorded with the snapshot. Raises LakeError when `query` changes the type of a
        column, or has rows outside the range.
        """
        # Hashed while they pass: what is staged may be more than fits into memory.
        hashed = f"SELECT *, hash(*COLUMNS(lambda name: NOT starts_with(name, '{AUDIT_PREFIX}'))) AS {_ROW_HASH} FROM ({{}})"
        queries = map(hashed.format, [query] if isinstance(query, str) else query)
        with self._staged(connection, table=table, queries=queries):
            written = _replace_staged(connection, table=table, partition_range=partition_range)
            if written["changed"]:
                recorded = {"table": table, "fingerprint": written["fingerprint"], **(information or {})}
                connection.execute(
                    "CALL lake.set_commit_message(?, ?, extra_info => ?)", [author, f"replace {table}", json.dumps(recorded)]
                )
        return Written(snapshot=current_snapshot(connection), **written)

    def append(self, connection: duckdb.DuckDBPyConnection, *, table: str, query: str, identifier: str, author: str) -> Appended:
        """Add the rows of `query` whose column `identifier` has a value that no row of `table` has, in one transaction.

        Rows that have the same identifier are added once. The same rows can so be appended again without harm, by any number of
        processes. Creates and extends the table as `replace` does. Raises LakeError when `query` changes the type of a column.
        """
        with self._staged(connection, table=table, queries=iter([query])):
            target = _target(connection, table)
            columns, _ = _aligned_columns(connection, table, target)
            names, key = ", ".join(map(quote, columns)), quote(identifier)
            staged = _scalar(connection, f"SELECT count(*) FROM {_STAGED}")
            added = connection.execute(
                f"INSERT INTO {target} ({names}) SELECT {names} FROM {_STAGED} s "
                f"WHERE NOT EXISTS (FROM {target} t WHERE t.{key} = s.{key}) QUALIFY row_number() OVER (PARTITION BY {key}) = 1"
            ).fetchall()[0][0]
            connection.execute("CALL lake.set_commit_message(?, ?)", [author, f"append to {table}"])
        return Appended(table=table, snapshot=current_snapshot(connection), rows=added, duplicates=staged - added)

    @contextmanager
    def _staged(self, connection: duckdb.DuckDBPyConnection, *, table: str, queries: Iterator[str]) -> Iterator[None]:
        """A transaction under the writer lock of `table`, with the rows of `queries` in a temporary table."""
        with self.writer_lock([table]):
            connection.execute(f"CREATE OR REPLACE TEMP TABLE staged_rows AS {next(queries)}")
            for further in queries:
                connection.execute(f"INSERT INTO {_STAGED} {further}")
            connection.execute("BEGIN")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            finally:
                connection.execute(f"DROP TABLE IF EXISTS {_STAGED}")


def _replace_staged(
    connection: duckdb.DuckDBPyConnection, *, table: str, partition_range: PartitionRange | None
) -> dict[str, Any]:
    target = _target(connection, table)
    columns, dropped = _aligned_columns(connection, table, target)
    inside = "true"
    if partition_range is not None:
        inside = partition_range.predicate("t")
        outside = _scalar(connection, f"SELECT count(*) FROM {_STAGED} t WHERE {inside} IS NOT TRUE")
        if outside:
            raise LakeError(
                f"{outside} rows for {table} lie outside {partition_range}: the query must select exactly that range."
            )
    partition = f"coalesce(CAST(t.{quote(partition_range.column)} AS VARCHAR), '')" if partition_range else "''"
    compared = [column for column in columns if not column.startswith(AUDIT_PREFIX)]
    new = _fingerprints(connection, _STAGED, partition=partition, row_hash=f"t.{_ROW_HASH}", where="true")
    old = _fingerprints(connection, target, partition=partition, row_hash=_hash(compared), where=inside)
    outdated = _partitions_with_values(connection, target, partition=partition, columns=dropped, where=inside)
    differing = sorted(key for key in new.keys() | old.keys() if new.get(key) != old.get(key) or key in outdated)
    if differing:
        keys = ", ".join(literal(key) for key in differing)
        if any(key in old for key in differing):
            connection.execute(f"DELETE FROM {target} t WHERE {inside} AND {partition} IN ({keys})")
        names = ", ".join(quote(column) for column in columns)
        connection.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM {_STAGED} t WHERE {partition} IN ({keys})")
    return {
        "table": table,
        "rows": sum(rows for rows, _ in new.values()),
        "rows_by_partition": {key: rows for key, (rows, _) in new.items()} if partition_range else {},
        "changed": bool(differing),
        "fingerprint": f"{sum(total for _, total in new.values()) % 2**64:016x}",
    }


def _target(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The quoted name of `table`, which is created with the columns of the staged rows when it does not exist."""
    schema, _, name = table.partition(".")
    if not table_exists(connection, table):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}")
        connection.execute(
            f"CREATE TABLE {quote(schema)}.{quote(name)} AS SELECT COLUMNS(lambda name: name <> '{_ROW_HASH}') FROM {_STAGED} LIMIT 0"
        )
    return f"lake.{quote(schema)}.{quote(name)}"


def _aligned_columns(connection: duckdb.DuckDBPyConnection, table: str, target: str) -> tuple[list[str], list[str]]:
    """Names of the staged columns, after the target got the new ones, and of the target's columns that are not staged."""
    staged = column_types(connection, _STAGED)
    staged.pop(_ROW_HASH, None)
    existing = column_types(connection, target)
    for column, data_type in staged.items():
        if column not in existing:
            connection.execute(f"ALTER TABLE {target} ADD COLUMN {quote(column)} {data_type}")
        elif existing[column] != data_type:
            raise LakeError(
                f"Column {column} of {table} is {existing[column]} and would become {data_type}: cast it in the query."
            )
    return list(staged), [column for column in existing if column not in staged]


def _partitions_with_values(
    connection: duckdb.DuckDBPyConnection, relation: str, *, partition: str, columns: Sequence[str], where: str
) -> set[str]:
    """Partitions in which one of `columns` has a value."""
    if not columns:
        return set()
    condition = " OR ".join(f"t.{quote(column)} IS NOT NULL" for column in columns)
    rows = connection.execute(f"SELECT DISTINCT {partition} FROM {relation} t WHERE {where} AND ({condition})").fetchall()
    return {key for (key,) in rows}


def _fingerprints(
    connection: duckdb.DuckDBPyConnection, relation: str, *, partition: str, row_hash: str, where: str
) -> dict[str, tuple[int, int]]:
    """Per partition the number of rows and the sum of their row hashes (a sum, so that equal rows do not cancel out)."""
    rows = connection.execute(
        f"SELECT {partition}, count(*), sum({row_hash}::HUGEINT) FROM {relation} t WHERE {where} GROUP BY ALL"
    ).fetchall()
    return {key: (count, int(total)) for key, count, total in rows if count}


def _hash(columns: Sequence[str]) -> str:
    return f"hash({', '.join(f't.{quote(column)}' for column in columns)})"


def fingerprint(connection: duckdb.DuckDBPyConnection, relation: str) -> str:
    """16 hexadecimal digits that identify the rows of `relation` (a table, or a query in parentheses) whatever their order.

    The sum modulo 2^64 of DuckDB's 64-bit row hashes (25 times faster than MD5); audit columns do not count. The same in every
    process, but another version of DuckDB may hash differently: the lock pins it.
    """
    columns = [column for column in column_types(connection, relation) if not column.startswith(AUDIT_PREFIX)]
    totals = _fingerprints(connection, relation, partition="''", row_hash=_hash(columns), where="true")
    return f"{sum(total for _, total in totals.values()) % 2**64:016x}"


def current_snapshot(connection: duckdb.DuckDBPyConnection) -> int:
    """The newest snapshot of the lake."""
    return int(_scalar(connection, "FROM lake.current_snapshot()"))


def snapshot_at(connection: duckdb.DuckDBPyConnection, moment: datetime) -> int:
    """The newest snapshot that was committed at `moment` (with a time zone) or before. Raises LakeError when there is none."""
    snapshot = connection.execute("SELECT max(snapshot_id) FROM lake.snapshots() WHERE snapshot_time <= ?", [moment]).fetchall()[
        0
    ][0]
    if snapshot is None:
        raise LakeError(f"The lake holds nothing from {moment.isoformat()} or before: its first snapshot is younger.")
    return int(snapshot)


def table_exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether `schema.table` is in the lake."""
    schema, _, name = table.partition(".")
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = ? AND table_name = ? UNION ALL "
        "SELECT 1 FROM duckdb_views() WHERE database_name = 'lake' AND schema_name = ? AND view_name = ?",
        [schema, name, schema, name],
    ).fetchall()
    return bool(found)


def column_types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Column name -> DuckDB type of a table, or of a query in parentheses, in its order."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}


def quote(identifier: str) -> str:
    """`identifier` as a quoted SQL name."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"


def sql_moment(moment: datetime) -> str:
    """`moment` (with a time zone) as a SQL literal."""
    return f"TIMESTAMPTZ {literal(moment.isoformat())}"


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    return connection.execute(query).fetchall()[0][0]
