"""The rows of a source before any cast, in a temporary table, as the platform's readers hand them over."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.extract import Extract, position
from mlops_assets.sources.reader import read_extracts

STAGED = "temp.main.staged_source"
"""One column a column of the source, named by its position: `position(0)` and so on."""

_SAMPLE = 5_000


@dataclass(frozen=True)
class StagedRows:
    """What is in `STAGED`: `columns` (name in the source -> DuckDB type) in the order of their positions, and the number of rows.

    `repeated` are names that several columns have, which cannot be read, as `unnamed` columns cannot; `unreadable` is the number of records
    that are no rows.
    """

    columns: Mapping[str, str]
    repeated: tuple[str, ...]
    unnamed: int
    count: int
    unreadable: int

    def sql(self, name: str) -> str:
        """The column of `STAGED` with the values of the source's column `name`."""
        return position(list(self.columns).index(name))


def sample_of(staged: str) -> str:
    """SQL for the first rows of `staged`."""
    return f"(FROM {staged} LIMIT {_SAMPLE})"


def stage_rows(
    connection: duckdb.DuckDBPyConnection, origin: Origin, options: Mapping[str, Any], *, null_strings: tuple[str, ...]
) -> StagedRows:
    """Write the rows of `origin` to `STAGED`. Raises SourceError for a source that cannot be read."""
    unknown = {internal("unknown"): {"type": "varchar", "optional": True}}
    with ExitStack() as stack:
        names = list(_read(connection, origin, options, null_strings, unknown, stack).fields)
    # A reader of JSON takes the values of the columns that are named.
    columns = {position(number): {"type": "varchar", "source": name} for number, name in enumerate(names)}
    with ExitStack() as stack:
        extract = _read(connection, origin, options, null_strings, columns or unknown, stack)
        fields = {name: field for name, field in extract.fields.items() if name not in extract.repeated}
        selected = ", ".join(f"{field.sql} AS {position(number)}" for number, field in enumerate(fields.values()))
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE staged_source AS SELECT {selected or '1 AS nothing'} FROM {extract.relation}"
        )
        [(count,)] = connection.execute(f"SELECT count(*) FROM {STAGED}").fetchall()
        unreadable = 0
        if extract.rejected:
            [(unreadable,)] = connection.execute(f"SELECT count(*) FROM ({extract.rejected})").fetchall()
    return StagedRows(
        columns={name: field.type for name, field in fields.items()},
        repeated=tuple(sorted(extract.repeated)),
        unnamed=extract.unnamed,
        count=count,
        unreadable=unreadable,
    )


def _read(
    connection: duckdb.DuckDBPyConnection,
    origin: Origin,
    options: Mapping[str, Any],
    null_strings: tuple[str, ...],
    columns: Mapping[str, Any],
    stack: ExitStack,
) -> Extract:
    table = origin.table(columns, options=options, null_strings=null_strings)
    [extract] = read_extracts(connection, table, directory=Path.cwd(), window=None, stack=stack)
    return extract
