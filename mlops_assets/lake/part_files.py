"""Rows in Parquet files that other processes wrote, each a part, and the transaction that takes the files into the lake as they are.

A file that never gets into the catalog is an orphan, which maintenance removes.
"""

import re
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import (
    CATALOG,
    LakeError,
    column_types,
    partition_fingerprints,
    row_hash,
    table_exists,
)
from mlops_assets.schema.column_names import is_audit

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
"""Names whose folder is their own; DuckLake invents one for others."""
_INEXACT = re.compile(r"HUGEINT|TIMESTAMP_S|TIMESTAMP_MS|ENUM|\bBIT\b|(?<!STAMP )\bTIME WITH TIME ZONE")
"""Types that come back from Parquet as another one: such values are written as text."""


@dataclass(frozen=True)
class PartTarget:
    """The table that parts are for, before any is written: the `folder` of its files, None where DuckLake has not told it, and its types.

    Rows lie in `partition_range`. `uncounted` is a column that is no content, and `counted` SQL for the rows that count in fingerprints.
    """

    table: str
    data_path: str
    folder: str | None
    types: Mapping[str, str]
    partition_range: PartitionRange
    uncounted: str | None
    counted: str

    @property
    def partition(self) -> str:
        """SQL for the partition of a row of the table `t`, as text."""
        return f"coalesce(CAST(t.{quote(self.partition_range.column)} AS VARCHAR), '')"

    def content(self, columns: Collection[str]) -> list[str]:
        """Those of `columns` that are content."""
        return [column for column in columns if not is_audit(column) and column != self.uncounted]


@dataclass(frozen=True)
class PartFile:
    """A file, the types of its columns, its rows, and the fingerprints of its partitions (see `partition_fingerprints`).

    Some columns of an `encoded` file are text instead of their types.
    """

    path: str
    types: Mapping[str, str]
    rows: int
    fingerprints: Mapping[str, tuple[int, int]]
    encoded: bool


@dataclass(frozen=True)
class PartFiles:
    """The files of all parts of one write; there is at least one, and all have the same columns."""

    target: PartTarget
    files: Sequence[PartFile]

    @property
    def query(self) -> str:
        """SQL for their rows, in their types."""
        paths = ", ".join(literal(file.path) for file in self.files)
        columns = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in self.files[0].types.items())
        return f"SELECT {columns} FROM read_parquet([{paths}])"

    @property
    def rows(self) -> int:
        """The rows of all."""
        return sum(file.rows for file in self.files)

    @property
    def fingerprints(self) -> dict[str, tuple[int, int]]:
        """The fingerprints of all partitions."""
        rows, hashes = Counter[str](), Counter[str]()
        for file in self.files:
            for key, (count, total) in file.fingerprints.items():
                rows[key] += count
                hashes[key] += total
        return {key: (rows[key], hashes[key]) for key in rows}

    def can_be_registered(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Whether the table, which exists, can have the files themselves: they are in its folder and have exactly its types."""
        existing = column_types(connection, lake_name(self.target.table))
        return self.target.folder is not None and all(
            not file.encoded and all(existing.get(name) == kind for name, kind in file.types.items()) for file in self.files
        )

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Add all rows to the table by naming the files in the open transaction: they are not read. From then on they are the lake's."""
        schema, _, table = self.target.table.partition(".")
        paths = ", ".join(literal(file.path) for file in self.files if file.rows)
        if paths:
            connection.execute(
                f"CALL ducklake_add_data_files('lake', {literal(table)}, [{paths}], schema => {literal(schema)}, allow_missing => true)"
            ).fetchall()

    def unregistered(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """The files, relative to the lake's folder, that no snapshot names."""
        names = {path.rpartition("/")[2]: path for path in (file.path for file in self.files)}
        among = ", ".join(map(literal, names))
        named = connection.execute(f"SELECT path FROM {CATALOG}.ducklake_data_file WHERE path IN ({among})").fetchall()
        return [path.removeprefix(self.target.data_path) for name, path in names.items() if (name,) not in named]


def part_target(
    connection: duckdb.DuckDBPyConnection,
    *,
    table: str,
    data_path: str,
    partition_range: PartitionRange,
    uncounted: str | None,
    counted: str,
) -> PartTarget:
    """The table as `connection` sees it."""
    exists = table_exists(connection, table)
    return PartTarget(
        table=table,
        data_path=data_path,
        folder=_folder(connection, table, data_path, exists),
        types=column_types(connection, lake_name(table)) if exists else {},
        partition_range=partition_range,
        uncounted=uncounted,
        counted=counted,
    )


def write_part(connection: duckdb.DuckDBPyConnection, target: PartTarget, query: str) -> PartFile:
    """Write the rows of `query` into a file of their own, and fingerprint what is in it. Raises LakeError for rows outside the range."""
    types = column_types(connection, f"({query})")
    inexact = [name for name, kind in types.items() if _INEXACT.search(kind)]
    encoded = ", ".join(f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" for name in inexact)
    folder = target.folder or f"{target.data_path}parts/"
    if not folder.startswith("s3://"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    path = f"{folder}part-{uuid.uuid4()}.parquet"
    rows = f"SELECT * REPLACE ({encoded}) FROM ({query})" if inexact else query
    connection.execute(f"COPY ({rows}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)")
    file = PartFile(path=path, types=types, rows=0, fingerprints={}, encoded=bool(inexact))
    written = f"({PartFiles(target, [file]).query})"
    inside = target.partition_range.predicate("t")
    count, outside = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE {inside} IS NOT TRUE) FROM {written} t"
    ).fetchall()[0]
    if outside:
        raise LakeError(
            f"{outside} rows for {target.table} lie outside {target.partition_range}: the query must select exactly that range."
        )
    hashed = row_hash(target.content(types))
    fingerprints = partition_fingerprints(connection, written, partition=target.partition, row_hash=hashed, where=target.counted)
    return PartFile(path=path, types=types, rows=int(count), fingerprints=fingerprints, encoded=bool(inexact))


def _folder(connection: duckdb.DuckDBPyConnection, table: str, data_path: str, exists: bool) -> str | None:
    """The folder of the files of `table`, in which the catalog names a file relative to the lake's; None when only DuckLake can tell."""
    schema, _, name = table.partition(".")
    if not exists:
        known = connection.execute(
            f"SELECT CASE WHEN path_is_relative THEN path END FROM {CATALOG}.ducklake_schema "
            f"WHERE schema_name = {literal(schema)} AND end_snapshot IS NULL"
        ).fetchall()
        [(of_schema,)] = known or [(f"{schema}/" if _PLAIN.fullmatch(schema) else None,)]
        return f"{data_path}{of_schema}{name}/" if of_schema and _PLAIN.fullmatch(name) else None
    partitioned, folder = connection.execute(
        f"SELECT count(p.partition_id), any_value(CASE WHEN s.path_is_relative AND t.path_is_relative THEN s.path || t.path END) "
        f"FROM {CATALOG}.ducklake_table t JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
        f"LEFT JOIN {CATALOG}.ducklake_partition_info p ON p.table_id = t.table_id AND p.end_snapshot IS NULL "
        f"WHERE s.schema_name = {literal(schema)} AND t.table_name = {literal(name)} AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL"
    ).fetchall()[0]
    return f"{data_path}{folder}" if folder and not partitioned else None
