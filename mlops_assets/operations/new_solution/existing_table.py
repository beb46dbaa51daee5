"""A raw table that the project declares, as the rows of one more solution."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.features.sql_expressions import expression_columns
from mlops_assets.operations.new_solution.answers import NONE, Answers, option_name
from mlops_assets.operations.new_solution.reading import SourceReading
from mlops_assets.operations.new_solution.table_facts import load_typed
from mlops_assets.schema.declarations import DeclaredTable
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import DateRange

_OF_FILES = ("delimiter", "quote", "escape", "skip", "encoding", "decimal", "thousands", "date_format", "names", "null")
"""Answers on how a file is read."""


def read_declared(
    connection: duckdb.DuckDBPyConnection, declared: DeclaredTable, solutions: Collection[Solution]
) -> SourceReading:
    """Read a raw table by its own declaration. `solutions` tell which of its columns are known late.

    Raises StackError for one without rows, SourceError for one that cannot be read.
    """
    table = declared.table
    facts = load_typed(connection, table, directory=declared.file.parent, window=_window(table))
    if not facts.rows:
        raise StackError(f"The raw table {declared.name} has no rows.", remedy=f"Bring some: {declared.file}")
    helpers = set(_helpers(table))
    return SourceReading(
        names={name: name for name in table.columns if name not in helpers},
        columns={name: {"type": column.type} for name, column in table.columns.items()},
        options={},
        null_strings=(),
        facts=facts,
        reasons=dict.fromkeys(table.columns, f"Declared in {declared.file}."),
        nested=frozenset(),
        without_offset=frozenset(),
        decisions=(),
        notes=(),
        later=_later(declared, solutions),
    )


def _window(table: RawTable) -> DateRange | None:
    partitions = table.partitions
    if partitions is None:
        return None
    return DateRange(partitions.column, partitions.start, partitions.end or datetime.now(UTC).date() + timedelta(days=2))


def _helpers(table: RawTable) -> Iterator[str]:
    """The columns that `mlops new` added to read another one from, as they are written in the file."""
    for name, column in table.columns.items():
        if column.expression is not None:
            read = expression_columns(column.expression, ())
            yield from (helper for helper in (f"{name}_text", f"{name}_local") if helper in read)


def _later(declared: DeclaredTable, solutions: Collection[Solution]) -> Mapping[str, str]:
    """The columns that are known only after the prediction: those that the table awaits, and the labels of other solutions."""
    later = dict.fromkeys(declared.table.comparison.awaited, f"The table awaits it: {declared.file}.")
    for solution in solutions:
        spine = solution.spine
        if spine.table != declared.name:
            continue
        expression = spine.expressions.get(spine.label)
        for name in expression_columns(expression, ()) if expression else {spine.label}:
            later[name] = f"The label of {solution.name} is computed from it; --feature {name} if it is known before."
    return later


def answers_for(declared: DeclaredTable, answers: Answers) -> Answers:
    """The answers with what the declaration of the table has decided. Raises StackError for one that contradicts it."""
    given = [option_name(field) for field in _OF_FILES if getattr(answers, field) not in (None, ())]
    if given:
        raise StackError(f"{', '.join(given)}: how {declared.name} is read stands in {declared.file}.", remedy="Change it there.")
    partitions, key = declared.table.partitions, tuple(declared.table.key)
    if partitions is not None:
        fixed = {"time_zone": partitions.time_zone, "cadence": partitions.cadence}
        for field, value in fixed.items():
            if getattr(answers, field) not in (None, value):
                raise StackError(
                    f"The partitions of {declared.name} have {field} {value}.", remedy=f"They are those of {declared.file}"
                )
        if answers.time == NONE:
            raise StackError(f"{declared.name} is partitioned by {partitions.column}: it has a time.", remedy="Name it: --time")
        answers = replace(answers, time_zone=partitions.time_zone, cadence=partitions.cadence)
    return answers if answers.key else replace(answers, key=key)


def require_values(declared: DeclaredTable, names: Collection[str]) -> None:
    """Raise StackError for a column of the key or the time that the declaration allows to be missing."""
    optional = [name for name in names if not declared.table.columns[name].required]
    if optional:
        columns = ", ".join(optional)
        raise StackError(
            f"{declared.file} allows {columns} to be missing, which every prediction needs.",
            remedy=f"Say `required: true` there: {columns}",
        )
