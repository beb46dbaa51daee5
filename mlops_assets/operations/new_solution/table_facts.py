"""Facts about the typed rows: how many values, different values and missing ones each column has, and its range."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.lake.sql import quote
from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import PARSED, REASON, DateRange, parse

TYPED = "temp.main.typed_source"
"""The accepted rows as the platform loads them."""

_MANY = 50
"""Columns whose facts are asked in one query."""


@dataclass(frozen=True)
class ColumnFacts:
    """Of one column its type, values that are there, different values, and the least and the greatest as text."""

    type: str
    filled: int
    distinct: int
    least: str | None
    greatest: str | None

    @property
    def is_time(self) -> bool:
        """Whether it holds dates or times."""
        return self.type in ("date", "timestamp", "timestamptz")

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.type in ("integer", "bigint", "double")


@dataclass(frozen=True)
class TableFacts:
    """Of a table its rows, those that were rejected with the first reasons, and the facts of its columns."""

    rows: int
    rejected: int
    columns: Mapping[str, ColumnFacts]


def load_typed(
    connection: duckdb.DuckDBPyConnection, table: RawTable, *, directory: Path, window: DateRange | None = None
) -> TableFacts:
    """Read `table` as the platform does, into `TYPED`, and count. Raises SourceError for a source that cannot be read.

    `directory` is where relative names of files start, `window` the partitions that are read; None: all rows.
    """
    with parse(connection, table, directory=directory, window=window):
        names = ", ".join(quote(name) for name in table.columns)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE typed_source AS SELECT {names} FROM {PARSED} WHERE {REASON} IS NULL")
        [(rejected,)] = connection.execute(f"SELECT count(*) FROM {PARSED} WHERE {REASON} IS NOT NULL").fetchall()
    [(rows,)] = connection.execute(f"SELECT count(*) FROM {TYPED}").fetchall()
    listed = list(table.columns)
    columns: dict[str, ColumnFacts] = {}
    for begin in range(0, len(listed), _MANY):
        part = listed[begin : begin + _MANY]
        measures = [
            f"count({value}), count(DISTINCT {value}), CAST(min({value}) AS VARCHAR), CAST(max({value}) AS VARCHAR)"
            for value in map(quote, part)
        ]
        [values] = connection.execute(f"SELECT {', '.join(measures)} FROM {TYPED}").fetchall()
        columns |= {name: _facts(table, name, values[4 * at : 4 * at + 4]) for at, name in enumerate(part)}
    return TableFacts(rows, rejected, columns)


def _facts(table: RawTable, name: str, values: tuple[Any, ...]) -> ColumnFacts:
    return ColumnFacts(table.columns[name].type, *values)
