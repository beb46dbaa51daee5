"""What a reader hands over of one file or query: SQL for its rows in their exact types, before any cast."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlops_assets.schema.column_names import internal


class SourceError(Exception):
    """A source cannot be read as its YAML file says; the message names the file or column and the remedy, never content of a file."""


@dataclass(frozen=True)
class Field:
    """One column of a source: its SQL over the relation of the extract, and its DuckDB type."""

    sql: str
    type: str


@dataclass(frozen=True)
class Extract:
    """The rows of one file or query.

    `fields` are the columns by their names in the source; a name in `repeated` belongs to several columns. `row` is SQL for a whole row
    as JSON text, over the same relation. `rejected` is SQL for what is no row: columns `SOURCE`, `REASON`, `ROW`. A source
    that is empty names no columns (`is_sparse`), since each row names its own.
    """

    label: str
    fields: Mapping[str, Field]
    relation: str
    row: str
    repeated: frozenset[str] = field(default_factory=frozenset)
    rejected: str | None = None
    is_sparse: bool = False


SOURCE, REASON, ROW = internal("source"), internal("reason"), internal("row")
"""Columns beside those of the table: the file of a row, why it is rejected (null = accepted), and what was rejected, as JSON."""


def position(number: int) -> str:
    """The name that a reader gives to the column at `number`: names of the source are never names in SQL."""
    return internal(f"column_{number}")
