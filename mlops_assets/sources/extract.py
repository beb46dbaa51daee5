"""The input and the output of a reader for one file or query: its part of a table, and SQL for its rows before any cast."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.schema.column_names import internal
from mlops_assets.schema.source import Query


class SourceError(Exception):
    """A source cannot be read as its YAML file says; the message names the file or column and the remedy, never content of a file."""


@dataclass(frozen=True, kw_only=True)
class SourcePart:
    """One file or query of a table: the file `number` at `path`, or the `query` with the `bounds` of its partitions.

    `wanted` are the columns that are read, with their stated types. What has to be written is written to `folder`, and what `cleanup`
    calls is called when the rows were taken. `reader` is the name of the reader in YAML.
    """

    connection: duckdb.DuckDBPyConnection
    reader: str
    label: str
    number: int
    path: str
    query: Query | None
    bounds: Mapping[str, str]
    wanted: Mapping[str, str]
    null_strings: Sequence[str]
    options: Mapping[str, Any]
    folder: Path
    cleanup: ExitStack

    @property
    def connection_string(self) -> str:
        """The value of the variable of the query. Raises SourceError when it is not set."""
        variable = self.query.url_variable if self.query else ""
        if not (url := os.environ.get(variable)):
            raise SourceError(f"Set the environment variable {variable} to the connection string of the source.")
        return url

    @property
    def sql(self) -> str:
        """The statement of the query with the bounds put in for their names in braces."""
        sql = self.query.sql if self.query else ""
        for name, value in self.bounds.items():
            sql = sql.replace("{" + name + "}", value)
        return sql.strip().rstrip(";")


@dataclass(frozen=True)
class Field:
    """One column of a source: its SQL over the relation of the extract, and its DuckDB type."""

    sql: str
    type: str


@dataclass(frozen=True)
class Extract:
    """The rows of one file or query.

    `fields` are the columns by their names in the source; a name in `repeated` belongs to several columns, and `unnamed` columns have none.
    `row` is SQL for a whole row as JSON text, over the same relation. `rejected` is SQL for what is no row: columns `SOURCE`, `REASON`,
    `ROW`. A source that is empty names no columns (`is_sparse`), since each row names its own. `has_nulls` tells that the reader took the
    texts that mean null for what they mean.
    """

    label: str
    fields: Mapping[str, Field]
    relation: str
    row: str
    repeated: frozenset[str] = field(default_factory=frozenset)
    unnamed: int = 0
    rejected: str | None = None
    is_sparse: bool = False
    has_nulls: bool = False


SOURCE, REASON, ROW = internal("source"), internal("reason"), internal("row")
"""Columns beside those of the table: the file of a row, why it is rejected (null = accepted), and what was rejected, as JSON."""


def position(number: int) -> str:
    """The name that a reader gives to the column at `number`: names of the source are never names in SQL."""
    return internal(f"column_{number}")
