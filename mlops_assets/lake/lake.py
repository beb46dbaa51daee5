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

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.lake.schema_evolution import ColumnChange, alter_statements, is_widening, refused_types_message
from mlops_assets.schema.column_names import audit_condition, fold, internal, is_audit

MEMORY_LIMIT = "3GB"
"""What one connection may hold in memory; joins and sorts of more go to disk, so that several processes fit on one machine."""

_STAGED = "temp.main.staged_rows"
_ROW_HASH = internal("row_hash")


class LakeError(Exception):
    """The lake cannot do what was asked; the message says what to change."""


@dataclass(frozen=True)
class ColumnValue:
    """Rows whose `column` has `value`."""

    column: str
    value: str

    def predicate(self, alias: str) -> str:
        """SQL that is true for these rows of table `alias`."""
        return f"{alias}.{quote(self.column)} = {literal(self.value)}"


@dataclass(frozen=True)
class PartitionRange:
    """The half-open range `[start, end)` of the DATE column `column` that one write replaces.

    With `include_null`, rows that have no partition are replaced too. The half-open ranges `without` are left as they are, and so are
    other rows than those of `rows`: somebody else writes them.
    """

    column: str
    start: date
    end: date
    include_null: bool = False
    without: tuple[tuple[date, date], ...] = ()
    rows: ColumnValue | None = None

    def predicate(self, alias: str) -> str:
        """SQL that is true for the rows of table `alias` inside the range."""
        column = f"{alias}.{quote(self.column)}"
        inside = f"({column} >= DATE '{self.start}' AND {column} < DATE '{self.end}')"
        for start, end in self.without:
            inside = f"({inside} AND NOT ({column} >= DATE '{start}' AND {column} < DATE '{end}'))"
        if self.include_null:
            inside = f"({inside} OR {column} IS NULL)"
        return inside if self.rows is None else f"({inside} AND {self.rows.predicate(alias)})"


@dataclass(frozen=True)
class Written:
    """What one write left: the snapshot that holds it, its rows, and whether anything differed from what was there.

    `fingerprint` identifies the content without the audit columns and independent of row order. `rows_by_partition` counts the rows
    of each value of the partition column. `schema_changes` are the columns that the write added or widened.
    """

    table: str
    snapshot: int
    rows: int
    rows_by_partition: Mapping[str, int]
    changed: bool
    fingerprint: str
    schema_changes: Sequence[ColumnChange]


@dataclass(frozen=True)
class Appended:
    """What one append left: the snapshot that holds it, the rows that were new, and those that were there already."""

    table: str
    snapshot: int
    rows: int
    duplicates: int
    schema_changes: Sequence[ColumnChange]


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

        Creates the schema and table, adds columns that are new in `query` (null in older rows), and widens a column when every
        value keeps its value; a column that is wider already stays so. Columns that `query` lacks are null in the new rows.
        Partitions whose rows are already there are left as they are, so that a second run changes nothing. `author`,
        `information` and the changes of columns are recorded with the snapshot. Raises LakeError when `query` changes the
        type of a column otherwise, or has rows outside the range.
        """
        # Hashed while they pass: what is staged may be more than fits into memory.
        hashed = f"SELECT *, hash(*COLUMNS(lambda name: NOT {audit_condition('name')})) AS {_ROW_HASH} FROM ({{}})"
        queries = [query] if isinstance(query, str) else query
        with self._staged(connection, table=table, locked=[table], queries=iter(queries), form=hashed):
            written = _replace_staged(connection, table=table, partition_range=partition_range)
            if written["changed"] or written["schema_changes"]:
                recorded = {"table": table, "fingerprint": written["fingerprint"], **(information or {})}
                if written["schema_changes"]:
                    recorded["schema_changes"] = [str(change) for change in written["schema_changes"]]
                connection.execute(
                    "CALL lake.set_commit_message(?, ?, extra_info => ?)", [author, f"replace {table}", json.dumps(recorded)]
                )
        return Written(snapshot=current_snapshot(connection), **written)

    def append(self, connection: duckdb.DuckDBPyConnection, *, table: str, query: str, identifier: str, author: str) -> Appended:
        """Add the rows of `query` whose column `identifier` has a value that no row of `table` has, in one transaction.

        Rows that have the same identifier are added once. The same rows can so be appended again without harm, by any number of
        processes. Creates, extends and widens the table as `replace` does. Raises LakeError when `query` changes the type of a column
        otherwise, or has rows without an identifier, which would be added again every time.
        """
        with self._staged(connection, table=table, locked=[table], queries=iter([query]), form="FROM ({})"):
            appended = _append_staged(connection, table=table, identifier=identifier)
            connection.execute("CALL lake.set_commit_message(?, ?)", [author, f"append to {table}"])
        return Appended(snapshot=current_snapshot(connection), **appended)

    def move(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        source: str,
        target: str,
        condition: str,
        identifier: str | None,
        author: str,
    ) -> Appended:
        """Take the rows of `source` that satisfy `condition` out of it and append them to `target`, in one transaction.

        As with `append`, a row whose `identifier` is in `target` already is not added again; without an identifier all are added.
        """
        rows = f"SELECT * FROM {lake_name(source)} WHERE {condition}"
        with self._staged(connection, table=target, locked=[source, target], queries=iter([rows]), form="FROM ({})"):
            appended = _append_staged(connection, table=target, identifier=identifier)
            connection.execute(f"DELETE FROM {lake_name(source)} WHERE {condition}")
            connection.execute("CALL lake.set_commit_message(?, ?)", [author, f"move from {source} to {target}"])
        return Appended(snapshot=current_snapshot(connection), **appended)

    @contextmanager
    def _staged(
        self, connection: duckdb.DuckDBPyConnection, *, table: str, locked: Sequence[str], queries: Iterator[str], form: str
    ) -> Iterator[None]:
        """A transaction under the writer locks of `locked`, with the rows of `queries`, each in `form`, in a temporary table.

        They have the types of `table` where those are wider.
        """
        with self.writer_lock(locked):
            existing = column_types(connection, lake_name(table)) if table_exists(connection, table) else {}
            aligned = (form.format(_in_wider_types(connection, query, existing)) for query in queries)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE staged_rows AS {next(aligned)}")
            for further in aligned:
                connection.execute(f"INSERT INTO {_STAGED} {further}")
            connection.execute("BEGIN")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:  # an interrupt too leaves no open transaction, and is raised again
                connection.execute("ROLLBACK")
                raise
            finally:
                connection.execute(f"DROP TABLE IF EXISTS {_STAGED}")


def _replace_staged(
    connection: duckdb.DuckDBPyConnection, *, table: str, partition_range: PartitionRange | None
) -> dict[str, Any]:
    target = _target(connection, table)
    columns, dropped, changes = _aligned_columns(connection, table, target)
    inside = "true"
    if partition_range is not None:
        inside = partition_range.predicate("t")
        outside = _scalar(connection, f"SELECT count(*) FROM {_STAGED} t WHERE {inside} IS NOT TRUE")
        if outside:
            raise LakeError(
                f"{outside} rows for {table} lie outside {partition_range}: the query must select exactly that range."
            )
    partition = f"coalesce(CAST(t.{quote(partition_range.column)} AS VARCHAR), '')" if partition_range else "''"
    compared = [column for column in columns if not is_audit(column)]
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
        "schema_changes": changes,
    }


def _append_staged(connection: duckdb.DuckDBPyConnection, *, table: str, identifier: str | None) -> dict[str, Any]:
    target = _target(connection, table)
    columns, _, changes = _aligned_columns(connection, table, target)
    names = ", ".join(map(quote, columns))
    if identifier is None:
        added = _scalar(connection, f"INSERT INTO {target} ({names}) SELECT {names} FROM {_STAGED}")
        return {"table": table, "rows": added, "duplicates": 0, "schema_changes": changes}
    key = quote(identifier)
    staged, identified = connection.execute(f"SELECT count(*), count({key}) FROM {_STAGED}").fetchall()[0]
    if identified < staged:
        raise LakeError(f"{staged - identified} rows for {table} have no {identifier}: the query must give every row one.")
    added = connection.execute(
        f"INSERT INTO {target} ({names}) SELECT {names} FROM {_STAGED} s "
        f"WHERE NOT EXISTS (FROM {target} t WHERE t.{key} = s.{key}) QUALIFY row_number() OVER (PARTITION BY {key}) = 1"
    ).fetchall()[0][0]
    return {"table": table, "rows": added, "duplicates": staged - added, "schema_changes": changes}


def _target(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The quoted name of `table`, which is created with the columns of the staged rows when it does not exist."""
    if not table_exists(connection, table):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote(table.partition('.')[0])}")
        connection.execute(
            f"CREATE TABLE {lake_name(table)} AS SELECT COLUMNS(lambda name: name <> '{_ROW_HASH}') FROM {_STAGED} LIMIT 0"
        )
    return lake_name(table)


def _in_wider_types(connection: duckdb.DuckDBPyConnection, query: str, existing: Mapping[str, str]) -> str:
    """`query` with its columns in the types of the `existing` ones where those are wider, so that equal rows have equal hashes."""
    wider = {fold(name): kind for name, kind in existing.items()}
    casts = [
        f"CAST({quote(name)} AS {wider[fold(name)]}) AS {quote(name)}"
        for name, kind in column_types(connection, f"({query})").items()
        if is_widening(kind, wider.get(fold(name), kind))
    ]
    return f"SELECT * REPLACE ({', '.join(casts)}) FROM ({query})" if casts else query


def _aligned_columns(
    connection: duckdb.DuckDBPyConnection, table: str, target: str
) -> tuple[list[str], list[str], list[ColumnChange]]:
    """Names of the staged columns, after the target got the new and wider ones; the target's columns that are not staged; the changes."""
    staged = column_types(connection, _STAGED)
    staged.pop(_ROW_HASH, None)
    existing = {fold(name): (name, kind) for name, kind in column_types(connection, target).items()}
    changes, refused = [], {}
    for column, data_type in staged.items():
        name, old = existing.get(fold(column), (column, None))
        if old is None or is_widening(old, data_type):
            changes.append(ColumnChange(name, old, data_type))
        elif old != data_type:
            refused[name] = (old, data_type)
    if refused:
        raise LakeError(refused_types_message(table, refused))
    for change in changes:
        for statement in alter_statements(target, change):
            connection.execute(statement)
    present = {fold(column) for column in staged}
    return list(staged), [name for folded, (name, _) in existing.items() if folded not in present], changes


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
    columns = [column for column in column_types(connection, relation) if not is_audit(column)]
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


def lake_name(table: str) -> str:
    """The quoted name of the lake's table `schema.table`."""
    schema, _, name = table.partition(".")
    return f"lake.{quote(schema)}.{quote(name)}"


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
