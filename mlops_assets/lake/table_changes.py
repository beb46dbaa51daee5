"""Changes of a lake table between two snapshots, as SQL: rows that came and rows that went, whatever the table's columns are called."""

from typing import Final

from mlops_assets.lake.lake import literal
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
