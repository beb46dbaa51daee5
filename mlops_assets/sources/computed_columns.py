"""Columns of a raw table that a SQL expression of its YAML computes: what the expression may hold, and its type."""

from functools import lru_cache

import duckdb

from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types
from mlops_assets.schema.column_names import internal
from mlops_assets.schema.source import Column, RawTable
from mlops_assets.sources.extract import SourceError

_ALLOWED = (
    "an expression reads the columns before it, of the same row, with operators, CASE and scalar functions of DuckDB: "
    "no aggregate, window function or subquery"
)
_KEY = (
    "a key can be made of columns, `md5(concat_ws('|', first, second))`; or leave `key` out: "
    "a spine that is derived from the table makes one of the content of each row"
)
_WINDOW = "a window function"
_FORBIDDEN = {
    "BindExpression: WINDOW": _WINDOW,
    "aggregates are not allowed": "an aggregate",
    "scalar subquery": "a subquery",
    "volatile function": "a function that gives another result at each call",
    "UNNEST": "unnest",
}
"""What DuckDB's errors say of an expression -> what is wrong with it."""


def expression_problems(table: RawTable) -> dict[str, str]:
    """Computed columns whose expression SQL does not take -> why."""
    problems: dict[str, str] = {}
    computed = [name for name, column in table.columns.items() if column.expression is not None]
    if not computed:
        return problems
    with _scratch_database().cursor() as connection:
        for name in computed:
            # Each by itself, with the columns before it as they are declared.
            before = {other: column for other, column in in_order(table) if other not in problems and other not in computed}
            before |= {other: table.columns[other] for other in computed[: computed.index(name)]}
            plain = {other: column.model_copy(update={"expression": None}) for other, column in before.items()}
            try:
                expression_types(connection, table.model_copy(update={"columns": {**plain, name: table.columns[name]}}))
            except SourceError as error:
                problem = _problem(table.columns[name], error)
                is_key = name in table.key or problem.startswith(_WINDOW)
                problems[name] = "; ".join([problem, _ALLOWED, *([_KEY] if is_key else [])])
    return problems


def _problem(column: Column, error: SourceError) -> str:
    """What is wrong with the expression of a column, for which DuckDB gave the error."""
    parts = (part for text, part in _FORBIDDEN.items() if text in str(error))
    part = next(parts, None)
    return f"{part} has no place in an expression: {column.expression!r}" if part else str(error).splitlines()[0]


@lru_cache(maxsize=1)
def _scratch_database() -> duckdb.DuckDBPyConnection:
    """A database in memory that expressions are bound in. One for the process: it takes 40 ms to open."""
    return duckdb.connect(config={"threads": 1})


def expression_types(connection: duckdb.DuckDBPyConnection, table: RawTable) -> dict[str, str]:
    """The DuckDB types of the computed columns, before their cast. Raises SourceError for an expression that SQL does not take."""
    types: dict[str, str] = {}
    known: list[str] = []
    for name, column in in_order(table):
        if column.expression is not None:
            value = internal("value")
            try:
                query = f"(SELECT {guarded(column.expression)} AS {value} FROM (SELECT {', '.join(known) or '1'}))"
                types[name] = column_types(connection, f"(SELECT {value}.{value} AS {value} FROM {query})")[value]
            except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
                raise SourceError(f"The expression of the column {name} cannot be computed: {error}") from None
        known.append(f"CAST(NULL AS {column.type}) AS {quote(name)}")
    return types


def in_order(table: RawTable) -> list[tuple[str, Column]]:
    """The columns that are read, then those that are computed."""
    return sorted(table.columns.items(), key=lambda item: item[1].expression is not None)


def guarded(expression: str) -> str:
    """A structure around the value of `expression`, which is null where the expression fails."""
    # On lines of its own, since it may end with a comment.
    return f"TRY(struct_pack({internal('value')} := (\n{expression}\n)))"
