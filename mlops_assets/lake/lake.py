"""The lake: DuckLake tables with their catalog in Postgres and their Parquet files in one folder, local or in object storage.

The connection, the writer locks and the transactions of writes. A Dagster asset takes it as `dg.ResourceParam[Lake]`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.core.object_storage import ObjectFolder, StorageAwayError, StorageError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.lake.object_secret import ObjectSecretError, grant_lake
from mlops_assets.lake.part_files import PartFiles
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.schema_evolution import ColumnChange
from mlops_assets.lake.sql import lake_name, literal
from mlops_assets.lake.table_writes import (
    ROW_HASH,
    STAGED,
    add_staged_generation,
    append_staged,
    in_wider_types,
    replace_staged,
)
from mlops_assets.lake.tables import LakeError, column_types, current_snapshot, table_exists
from mlops_assets.schema.column_names import audit_condition

if TYPE_CHECKING:
    import psycopg2.extensions

MEMORY_LIMIT = "3GB"
"""What one connection may hold in memory; joins and sorts of more go to disk, so that several processes fit on one machine."""


class TableInUseError(LakeError):
    """Another process writes the table."""


@dataclass(frozen=True)
class WriteResult:
    """The result of one write: the snapshot that holds it, its rows, and whether anything differed from what was there.

    `fingerprint` identifies the content without the audit columns and independent of row order. `rows_by_partition` counts the rows
    of each value of the partition column, `hashes_by_partition` sums their hashes. `schema_changes` are the columns that the write
    added or widened.
    """

    table: str
    snapshot: int
    rows: int
    rows_by_partition: Mapping[str, int]
    hashes_by_partition: Mapping[str, int]
    changed: bool
    fingerprint: str
    schema_changes: Sequence[ColumnChange]


@dataclass(frozen=True)
class GenerationResult(WriteResult):
    """The result of adding a generation: how many of its rows are the `first` of their key, and how many came `again` with other values.

    Rows and fingerprint are those that count in the range after it.
    """

    first: int
    again: int


@dataclass(frozen=True)
class AppendResult:
    """The result of one append: the snapshot that holds it, the rows that were new, and those that were there already."""

    table: str
    snapshot: int
    rows: int
    duplicates: int
    schema_changes: Sequence[ColumnChange]


@dataclass(frozen=True)
class Lake:
    """Address of one lake: libpq string of the catalog database, data folder, folder of the DuckDB extensions.

    The files are in `storage` where that is given. What DuckDB spills is beside the data folder all the same. A branch of a lake in object
    storage reads that one's files in `branched`.
    """

    catalog: str
    data_directory: Path
    extension_directory: Path
    storage: ObjectFolder | None = None
    branched: ObjectFolder | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Lake":
        """The lake of this installation."""
        return cls(
            catalog=settings.postgres_connection_string(LAKE_DATABASE),
            data_directory=settings.lake_directory,
            extension_directory=DUCKDB_EXTENSION_DIRECTORY,
            storage=ObjectFolder(settings.lake_location) if settings.storage else None,
            branched=ObjectFolder(settings.branched_storage) if settings.branched_storage else None,
        )

    @property
    def data_path(self) -> str:
        """Where the files are, with a slash at its end: a folder, or an address in object storage."""
        return f"{self.storage.url}/" if self.storage else f"{self.data_directory}/"

    def file_sizes(self) -> list[int]:
        """The bytes of each Parquet file that is there, named by the catalog or not."""
        if self.storage:
            return [stored.size for name, stored in self.storage.objects().items() if name.endswith(".parquet")]
        return [path.stat().st_size for path in self.data_directory.rglob("*.parquet")]

    def missing_files(self, names: Sequence[str]) -> list[str]:
        """Those of the files `names`, relative to `data_path`, that are not there."""
        if self.storage:
            present = self.storage.objects()
            return [name for name in names if name not in present]
        return [name for name in names if not (self.data_directory / name).exists()]

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection whose default catalog is the lake, in UTC. Close it, or use it in a `with` statement.

        Any number of connections of any number of processes read and write at once. Raises LakeError when the extensions are not
        installed, the catalog cannot be reached, or there is no right to the files in object storage.
        """
        if not self.extension_directory.is_dir():
            raise LakeError(f"No DuckDB extensions in {self.extension_directory}: run `mlops prepare` once.")
        for storage in filter(None, (self.storage, self.branched)):
            self._wait_for(storage)
        connection = duckdb.connect(
            config={
                "extension_directory": str(self.extension_directory),
                "autoinstall_known_extensions": False,
                # `mlops prepare` verified the signatures: to do it again takes 0.3 s of a processor for each connection.
                "allow_unsigned_extensions": True,
                "memory_limit": MEMORY_LIMIT,
                # DuckDB's own choice is the working directory.
                "temp_directory": str(self.data_directory.parent / "duckdb_spill"),
                # Its threads spin while they wait for work: to attach the catalog, by small queries, takes them twice the processor.
                "threads": 1,
            }
        )
        mode = ", READ_ONLY" if read_only else ""
        try:
            connection.execute("SET TimeZone = 'UTC'")
            grant_lake(connection, self.data_path, self.branched.url if self.branched else None)
            connection.execute(
                f"ATTACH {literal('ducklake:postgres:' + self.catalog)} AS lake (DATA_PATH {literal(self.data_path)}{mode})"
            )
            connection.execute("USE lake; RESET threads")
        except ObjectSecretError as error:
            connection.close()
            raise LakeError(f"The lake's files in {self.data_path} cannot be used: {error}") from error
        except duckdb.Error as error:
            connection.close()
            raise LakeError(
                f"The lake's catalog cannot be opened: {error} Is Postgres running? `mlops up` starts it, `mlops status` shows it."
            ) from error
        return connection

    def _wait_for(self, storage: ObjectFolder) -> None:
        """Wait for an object store that is away, and say so. DuckDB, which also does, would not.

        Raises LakeError when it stays away, or refuses.
        """
        try:
            patiently(storage.check)
        except (StorageError, StorageAwayError) as error:
            raise LakeError(f"The lake's files cannot be used. {error}") from error

    @contextmanager
    def writer_lock(self, tables: Sequence[str], *, patience_seconds: float | None = None) -> Iterator[None]:
        """Hold the right to write `tables` (each `schema.table`) against every other process, waiting for it as long as needed.

        Postgres advisory locks in one order for all, so that two holders of several tables cannot wait for each other. The
        server releases them when the process dies. Needed because two DuckLake transactions that each delete nothing and insert
        the same rows both commit (duckdb/ducklake#1393), and because commits to one table conflict. Raises TableInUseError when
        one of them is not free within `patience_seconds`, where those are given.
        """
        import psycopg2.errors

        with self.catalog_cursor() as cursor:
            if patience_seconds is not None:
                cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{patience_seconds * 1000:.0f}ms",))
            for table in sorted(set(tables)):
                try:
                    cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"lake:{table}",))
                except psycopg2.errors.LockNotAvailable as error:
                    raise TableInUseError(f"{table} was being written for {patience_seconds} s.") from error
            yield

    @contextmanager
    def catalog_cursor(self) -> "Iterator[psycopg2.extensions.cursor]":
        """A cursor of a connection of its own to the catalog's database, where each statement is a transaction."""
        import psycopg2

        with closing(psycopg2.connect(self.catalog)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    def replace(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        table: str,
        query: str | Iterable[str] | PartFiles,
        partition_range: PartitionRange | None,
        author: str,
        information: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Make the rows of `table` (in `partition_range`, or all) equal to the rows of `query`, in one transaction.

        Several queries, which have the same columns, are run one after another, each before the next is asked for. Rows that other
        processes wrote into files are taken as these files, where all of them are new.

        Creates the schema and table, adds columns that are new in `query` (null in older rows), and widens a column when every
        value keeps its value; a column that is wider already stays so. Columns that `query` lacks are null in the new rows.
        Partitions whose rows are already there are left as they are, so that a second run changes nothing. `author`,
        `information` and the changes of columns are recorded with the snapshot. Raises LakeError when `query` changes the
        type of a column otherwise, or has rows outside the range.
        """
        # Hashed while they pass: what is staged may be more than fits into memory.
        hashed = f"SELECT *, hash(*COLUMNS(lambda name: NOT {audit_condition('name')})) AS {ROW_HASH} FROM ({{}})"
        with self._staged(connection, table=table, locked=[table], rows=query, form=hashed) as files:
            written = replace_staged(connection, table=table, partition_range=partition_range, files=files)
            _describe_commit(connection, f"replace {table}", written, author=author, information=information or {})
        return WriteResult(snapshot=current_snapshot(connection), **written)

    def add_generation(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        table: str,
        query: str | Iterable[str] | PartFiles,
        key: Sequence[str],
        identifier: str,
        partition_range: PartitionRange,
        author: str,
        supersede: bool,
    ) -> GenerationResult:
        """Add the rows of `query` to `table`, in one transaction, beside those that `partition_range` has: no row is lost or gets other values.

        `query` is as in `replace`, with the columns `GENERATION`, 1 in each row, and `COUNTED`, if it may count. A row whose `key` has rows
        is added when none of them has the same values in all other columns. It is the next generation, whose number its `identifier` then ends
        with (`:g2`), and counts only while no earlier one does. With `supersede` it counts instead of the earlier one, of which only the
        mark changes. The same rows can so be added again without harm. Creates, extends and widens the table as `replace` does. Raises
        LakeError when `query` changes the type of a column otherwise, or has rows outside the range.
        """
        with self._staged(connection, table=table, locked=[table], rows=query, form="FROM ({})") as files:
            added = add_staged_generation(
                connection,
                table=table,
                key=key,
                identifier=identifier,
                partition_range=partition_range,
                supersede=supersede,
                files=files,
            )
            _describe_commit(connection, f"add to {table}", added, author=author, information={})
        return GenerationResult(snapshot=current_snapshot(connection), **added)

    def append(
        self, connection: duckdb.DuckDBPyConnection, *, table: str, query: str, identifier: str, author: str
    ) -> AppendResult:
        """Add the rows of `query` whose column `identifier` has a value that no row of `table` has, in one transaction.

        Rows that have the same identifier are added once. The same rows can so be appended again without harm, by any number of
        processes. Creates, extends and widens the table as `replace` does. Raises LakeError when `query` changes the type of a column
        otherwise, or has rows without an identifier, which would be added again every time.
        """
        with self._staged(connection, table=table, locked=[table], rows=query, form="FROM ({})"):
            appended = append_staged(connection, table=table, identifier=identifier)
            connection.execute("CALL lake.set_commit_message(?, ?)", [author, f"append to {table}"])
        return AppendResult(snapshot=current_snapshot(connection), **appended)

    def move(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        source: str,
        target: str,
        condition: str,
        identifier: str | None,
        author: str,
    ) -> AppendResult:
        """Take the rows of `source` that satisfy `condition` out of it and append them to `target`, in one transaction.

        As with `append`, a row whose `identifier` is in `target` already is not added again; without an identifier all are added.
        """
        rows = f"SELECT * FROM {lake_name(source)} WHERE {condition}"
        with self._staged(connection, table=target, locked=[source, target], rows=rows, form="FROM ({})"):
            appended = append_staged(connection, table=target, identifier=identifier)
            connection.execute(f"DELETE FROM {lake_name(source)} WHERE {condition}")
            connection.execute("CALL lake.set_commit_message(?, ?)", [author, f"move from {source} to {target}"])
        return AppendResult(snapshot=current_snapshot(connection), **appended)

    @contextmanager
    def _staged(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        table: str,
        locked: Sequence[str],
        rows: str | Iterable[str] | PartFiles,
        form: str,
    ) -> Iterator[PartFiles | None]:
        """A transaction under the writer locks of `locked`, with the rows of queries, each in `form`, in a temporary table.

        They have the types of `table` where those are wider. Rows in files are not read: a view has them, and gives the files, unless the
        table has other types by now than those that the files were written for.
        """
        with self.writer_lock(locked):
            existing = column_types(connection, lake_name(table)) if table_exists(connection, table) else {}
            if isinstance(rows, PartFiles):
                query = form.format(in_wider_types(connection, rows.query, existing))
                connection.execute(f"CREATE OR REPLACE TEMP VIEW staged_rows AS {query}")
            else:
                queries = iter([rows] if isinstance(rows, str) else rows)
                aligned = (form.format(in_wider_types(connection, query, existing)) for query in queries)
                connection.execute(f"CREATE OR REPLACE TEMP TABLE staged_rows AS {next(aligned)}")
                for further in aligned:
                    connection.execute(f"INSERT INTO {STAGED} {further}")
            connection.execute("BEGIN")
            try:
                yield rows if isinstance(rows, PartFiles) and rows.target.types == existing else None
                connection.execute("COMMIT")
            except BaseException:  # an interrupt too leaves no open transaction, and is raised again
                connection.execute("ROLLBACK")
                raise
            finally:
                connection.execute(f"DROP {'VIEW' if isinstance(rows, PartFiles) else 'TABLE'} IF EXISTS {STAGED}")
        if isinstance(rows, PartFiles):
            # Only now: whether a commit that failed was done is not known.
            self._remove_files(rows.unregistered(connection))

    def _remove_files(self, names: Sequence[str]) -> None:
        """Remove files by their names relative to `data_path`; those that are gone already are no fault."""
        for name in names:
            if self.storage:
                self.storage.remove(name)
            else:
                (self.data_directory / name).unlink(missing_ok=True)


def _describe_commit(
    connection: duckdb.DuckDBPyConnection,
    message: str,
    written: Mapping[str, Any],
    *,
    author: str,
    information: Mapping[str, Any],
) -> None:
    """Record author and content with the snapshot that the open transaction makes; without a change it makes none."""
    if written["changed"] or written["schema_changes"]:
        recorded = {"table": written["table"], "fingerprint": written["fingerprint"], **information}
        if written["schema_changes"]:
            recorded["schema_changes"] = [str(change) for change in written["schema_changes"]]
        connection.execute("CALL lake.set_commit_message(?, ?, extra_info => ?)", [author, message, json.dumps(recorded)])
