"""How the rows of an origin are read: options, names and types of the raw table, and the facts of its typed rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.column_types import ColumnType, ColumnTypes, infer_types
from mlops_assets.operations.new_solution.csv_signs import infer_signs
from mlops_assets.operations.new_solution.fitting import StagedColumns
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.raw_columns import lake_names, raw_columns
from mlops_assets.operations.new_solution.staged_rows import StagedRows, stage_rows
from mlops_assets.operations.new_solution.table_facts import TableFacts, load_typed
from mlops_assets.sources.column_types import TextFormats

_FEW = 20
"""A label with so few different whole numbers may be one of classes."""


@dataclass(frozen=True)
class SourceReading:
    """The `columns` of the raw table as YAML has them, the reader's `options`, `null_strings`, and the `facts` of the typed rows.

    `names` are the lake's names by those in the source, `reasons` those of the types; `nested` and `without_offset` are columns with lists or
    objects, and with times that say no zone; `repeated` names of the source belong to several columns,
    which are not read; `later` columns are known only after the prediction, with the reason.
    """

    names: Mapping[str, str]
    columns: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    null_strings: tuple[str, ...]
    facts: TableFacts
    reasons: Mapping[str, str]
    nested: frozenset[str]
    without_offset: frozenset[str]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    repeated: tuple[str, ...] = ()
    later: Mapping[str, str] = field(default_factory=dict)


def read_source(connection: duckdb.DuckDBPyConnection, origin: Origin, table: str, answers: Answers) -> SourceReading:
    """Read `origin` as the raw table `table` would. Raises StackError for one without rows, SourceError for one that cannot be read."""
    options: dict[str, Any] = {}
    decisions: tuple[Decision, ...] = ()
    if origin.is_text_file:
        options, decisions = infer_signs(connection, origin, answers)
    staged = stage_rows(connection, origin, options, null_strings=())
    if not staged.count or not staged.columns:
        _refuse_unread(origin, staged, options)
    prefers_comma = options.get("delim") == ";" or "encoding" in options
    types = infer_types(connection, staged, answers, has_exact_types=origin.has_exact_types, prefers_comma=prefers_comma)
    types = _with_whole_label(connection, StagedColumns(connection, staged), answers.label, types)
    names = lake_names(staged.columns, table)
    columns = raw_columns(types, names, time_zone=answers.time_zone)
    options |= types.options
    table_as_read = origin.table(columns, options=options, null_strings=types.null_strings)
    facts = load_typed(connection, table_as_read, directory=Path.cwd())
    notes = list(types.notes)
    notes += _unread_columns(staged)
    if facts.rejected:
        notes.append(
            f"{facts.rejected:,} of {facts.rows + facts.rejected:,} rows cannot be read and will be rejected, with the reason."
        )
    notes += [f"{source} is called {name} in the lake." for source, name in names.items() if source != name]
    return SourceReading(
        names=names,
        columns=columns,
        options=options,
        null_strings=types.null_strings,
        facts=facts,
        reasons={name: types.types[source].reason for source, name in names.items()},
        nested=frozenset(name for source, name in names.items() if types.types[source].is_nested),
        without_offset=frozenset(name for source, name in names.items() if _says_no_zone(types.types[source])),
        decisions=(*decisions, *types.decisions),
        notes=tuple(notes),
        repeated=staged.repeated,
    )


def _refuse_unread(origin: Origin, staged: StagedRows, options: Mapping[str, Any]) -> NoReturn:
    """Raise StackError for a source of which no row is read."""
    if not staged.unreadable:
        raise StackError(f"{origin.label} has no rows.", remedy="Name a file or a query that has some.")
    columns = len(staged.columns) + len(staged.repeated) + staged.unnamed
    lines = f"None of {staged.unreadable:,} lines of {origin.label} is a row of {columns} columns, as its header has."
    shown = ", ".join(f"{name}: {value!r}" for name, value in options.items())
    raise StackError(
        f"{lines} It is read with {shown or 'the signs of RFC 4180'}.",
        remedy="Say how it is written: --delimiter, --quote, --escape, and --skip for lines before the header.",
    )


def _unread_columns(staged: StagedRows) -> list[str]:
    """A note on each column that cannot be read for its name."""
    notes = [
        f"{name} is the name of several columns, which cannot be told apart: left out. Give each a name of its own in the file."
        for name in staged.repeated
    ]
    if staged.unnamed:
        columns = "A column has no name" if staged.unnamed == 1 else f"{staged.unnamed} columns have no name"
        notes.append(f"{columns} and cannot be read: left out. Give a name to what has values.")
    return notes


def _says_no_zone(kind: ColumnType) -> bool:
    return kind.stated == "timestamptz" and not kind.has_offset


def _with_whole_label(
    connection: duckdb.DuckDBPyConnection, columns: StagedColumns, label: str, types: ColumnTypes
) -> ColumnTypes:
    """The types with a label of few whole numbers as integers, though they are written or stored with a fraction of 0."""
    kind = types.types.get(label)
    if kind is None or kind.stated != "double":
        return types
    value = columns.raw(label, types.null_strings)
    [(distinct,)] = connection.execute(f"SELECT count(DISTINCT {value}) FROM temp.main.staged_source").fetchall()
    formats = TextFormats.of(types.options)
    if distinct > _FEW or not columns.fitting([label], "integer", formats, nulls=types.null_strings):
        return types
    whole = replace(kind, stated="integer", reason="Whole numbers, written with a fraction of 0.")
    return replace(types, types={**types.types, label: whole})
