"""Changes of lake tables: the rows that came and went between two snapshots, and the snapshot of the newest change."""

from collections.abc import Collection
from typing import Final

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.lake.tables import CATALOG
from mlops_assets.schema.column_names import internal

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


def changes_since(table: str, *, former: int, last: int) -> str:
    """SQL for the columns of `table` and `CHANGE`, of all changes after the snapshot `former`, which exists, up to `last`.

    Snapshots between them may have expired: what only they held came and went. DuckLake begins with a snapshot that exists, so that the
    changes which `former` made itself are taken off again.
    """
    return (
        f"{changes_query(table, first=former, last=last)} UNION ALL BY NAME "
        f"SELECT * REPLACE (-{CHANGE} AS {CHANGE}) FROM ({changes_query(table, first=former, last=former)})"
    )


def newest_change(connection: duckdb.DuckDBPyConnection, tables: Collection[str]) -> int | None:
    """A number that grows with each change of `tables` (each `schema.table`): the snapshot of the newest, or the newest that expired.

    None when one of them is no table of the lake, but a view.
    """
    names = ", ".join(literal(table) for table in tables)
    numbers = connection.execute(
        f"SELECT CAST(t.table_id AS VARCHAR) FROM {CATALOG}.ducklake_table t JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
        f"WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL AND s.schema_name || '.' || t.table_name IN ({names})"
    ).fetchall()
    if len(numbers) < len(tables):
        return None
    # A new table is named in the changes, any other numbered.
    changed = ", ".join([names, *(literal(number) for (number,) in numbers)])
    [(newest,)] = connection.execute(
        f"SELECT max(snapshot_id) FROM lake.snapshots() WHERE list_has_any(flatten(map_values(changes)), [{changed}])"
    ).fetchall()
    # The snapshot of the newest change may be among those.
    [(expired,)] = connection.execute(
        f"SELECT max(snapshot_id) - 1 FROM (SELECT snapshot_id, lag(snapshot_id, 1, -1) OVER (ORDER BY snapshot_id) AS former "
        f"FROM {CATALOG}.ducklake_snapshot) WHERE former < snapshot_id - 1"
    ).fetchall()
    return max(int(number) for number in (newest, expired, -1) if number is not None)
