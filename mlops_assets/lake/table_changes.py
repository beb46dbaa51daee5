"""Changes of lake tables: the rows that came and went between two snapshots, and the snapshot of the newest change."""

from collections.abc import Collection
from typing import Final

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.schema.column_names import internal

_CATALOG = "__ducklake_metadata_lake"

CHANGE: Final = internal("change")
"""Column of the changes: 1 for a row that came, -1 for one that went. An updated row did both."""


def changes_query(table: str, *, first: int, last: int) -> str:
    """SQL for the columns of `table` (`schema.name`) and `CHANGE`, of all changes in the snapshots from `first` to `last`.

    DuckLake's `ducklake_table_changes` is not used: it calls its own columns `change_type`, `rowid` and `snapshot_id`, and renames
    those of the table that are called so.
    """
    schema, _, name = table.partition(".")
    arguments = f"'lake', {literal(schema)}, {literal(name)}, {first}, {last}"
    return (
        f"SELECT *, 1 AS {CHANGE} FROM ducklake_table_insertions({arguments}) "
        f"UNION ALL BY NAME SELECT *, -1 AS {CHANGE} FROM ducklake_table_deletions({arguments})"
    )


def newest_change(connection: duckdb.DuckDBPyConnection, tables: Collection[str]) -> int | None:
    """The newest snapshot that changed one of `tables` (each `schema.table`). None when one of them is no table of the lake, but a view."""
    names = ", ".join(literal(table) for table in tables)
    numbers = connection.execute(
        f"SELECT CAST(t.table_id AS VARCHAR) FROM {_CATALOG}.ducklake_table t JOIN {_CATALOG}.ducklake_schema s USING (schema_id) "
        f"WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL AND s.schema_name || '.' || t.table_name IN ({names})"
    ).fetchall()
    if len(numbers) < len(tables):
        return None
    # A new table is named in the changes, any other numbered.
    changed = ", ".join([names, *(literal(number) for (number,) in numbers)])
    [(newest,)] = connection.execute(
        f"SELECT max(snapshot_id) FROM lake.snapshots() WHERE list_has_any(flatten(map_values(changes)), [{changed}])"
    ).fetchall()
    return None if newest is None else int(newest)
