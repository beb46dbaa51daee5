"""Compaction of the tables of the lake: rows in the catalog to files, small files to larger ones, files of many deleted rows to new ones."""

from dataclasses import dataclass

import duckdb

from mlops_assets.lake.lake import Lake, TableInUseError
from mlops_assets.lake.sql import literal
from mlops_assets.lake.tables import CATALOG

_MEGABYTE = 1 << 20
_SIZES = ((0, _MEGABYTE), (_MEGABYTE, 16 * _MEGABYTE), (16 * _MEGABYTE, 256 * _MEGABYTE))
"""Files of like size are merged: a row is written again once in each of these, however long the table grows."""
_MOST_FILES = 10
"""A table has fewer files of like size than this, or they are merged."""
_MOST_DELETED = 0.3
"""A file of which a greater part of the rows is deleted is written again."""
_PATIENCE_SECONDS = 60.0

_LIVE = f"""
SELECT s.schema_name || '.' || t.table_name AS name, d.file_size_bytes AS size, d.record_count AS rows,
       coalesce(max(r.delete_count), 0) AS deleted
FROM {CATALOG}.ducklake_data_file d
JOIN {CATALOG}.ducklake_table t USING (table_id) JOIN {CATALOG}.ducklake_schema s USING (schema_id)
LEFT JOIN {CATALOG}.ducklake_delete_file r ON r.data_file_id = d.data_file_id AND r.end_snapshot IS NULL
WHERE d.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
GROUP BY 1, 2, 3, d.data_file_id
"""
_INLINED = f"""
SELECT i.table_name, s.schema_name || '.' || t.table_name
FROM {CATALOG}.ducklake_inlined_data_tables i JOIN {CATALOG}.ducklake_table t USING (table_id)
JOIN {CATALOG}.ducklake_schema s USING (schema_id) WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL
"""


@dataclass(frozen=True)
class _Need:
    """What a table needs: rows of the catalog written to a file, deleted rows left out, files of some sizes merged."""

    flush: bool
    rewrite: bool
    merge: tuple[tuple[int, int], ...]


def compactable_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables, each `schema.table`, that `compact` would change."""
    return sorted(_needs(connection))


def compact(lake: Lake, connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Compact `table`, which no other process writes meanwhile. Returns False when one did all the time, without having changed anything.

    Every snapshot reads as before: DuckLake records with each row of a merged file from which snapshot on it is there.
    """
    schema, _, name = table.partition(".")
    try:
        with lake.writer_lock([table], patience_seconds=_PATIENCE_SECONDS):
            need = _needs(connection).get(table)
            if need and need.flush:
                connection.execute(
                    f"CALL ducklake_flush_inlined_data('lake', schema_name => {literal(schema)}, table_name => {literal(name)})"
                ).fetchall()
            arguments = f"'lake', {literal(name)}, schema => {literal(schema)}"
            if need and need.rewrite:
                connection.execute(
                    f"CALL ducklake_rewrite_data_files({arguments}, delete_threshold => {_MOST_DELETED})"
                ).fetchall()
            for least, most in need.merge if need else ():
                connection.execute(
                    f"CALL ducklake_merge_adjacent_files({arguments}, min_file_size => {least}, max_file_size => {most})"
                ).fetchall()
    except (TableInUseError, duckdb.TransactionException):
        # The latter: somebody writes without the lock.
        return False
    return True


def _needs(connection: duckdb.DuckDBPyConnection) -> dict[str, _Need]:
    inlined = connection.execute(_INLINED).fetchall()
    filled = {
        table
        for name, table in inlined
        if connection.execute(f'SELECT count(*) FROM (FROM {CATALOG}."{name}" LIMIT 1)').fetchall() != [(0,)]
    }
    small = ", ".join(
        f"count(*) FILTER (WHERE deleted = 0 AND size >= {least} AND size < {most}) >= {_MOST_FILES}" for least, most in _SIZES
    )
    rows = connection.execute(
        f"SELECT name, bool_or(deleted >= {_MOST_DELETED} * rows AND deleted > 0), [{small}] FROM ({_LIVE}) GROUP BY name"
    ).fetchall()
    needs = {table: _Need(flush=True, rewrite=False, merge=()) for table in filled}
    for table, rewrite, merged in rows:
        merge = tuple(size for size, many in zip(_SIZES, merged, strict=True) if many)
        if rewrite or merge:
            needs[table] = _Need(flush=table in filled, rewrite=rewrite, merge=merge)
    return needs
