"""SQL expressions in YAML over the columns of one row: DuckDB's own parser and binder read them when the YAML is loaded."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import duckdb

from mlops_assets.lake.sql import quote
from mlops_assets.schema.configuration_errors import ConfigurationError, nearest

Path = tuple[str | int, ...]

_FORBIDDEN = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "STAR": "a star",
    "LAMBDA": "a lambda function",
    "DEFAULT": "DEFAULT",
}
_ENVIRONMENT = {"age", "current_setting", "getenv", "getvariable"}
"""Functions that DuckDB calls consistent although they read the clock or the settings of the session."""


def expression_type(expression: str, *, columns: Mapping[str, str], of: str, path: Path) -> str:
    """The DuckDB type of `expression` over one row's `columns` (name -> SQL type), which belong to `of`.

    Raises ConfigurationError at `path` when it reads other columns, or calls anything but deterministic scalar functions.
    """
    for node in _nodes(_parse(expression, path)):
        kind = node.get("class")
        if kind in _FORBIDDEN:
            raise ConfigurationError(
                path, f"{_FORBIDDEN[kind]} has no place in an expression: use the columns of one row of {of}"
            )
        if kind == "COLUMN_REF":
            column = ".".join(node["column_names"])
            if column not in columns:
                raise ConfigurationError(path, f"{column!r} is no column of {of}; {nearest(column, list(columns))}")
        if kind == "FUNCTION":
            _check_function(node["function_name"], path)
    rows = ", ".join(f"CAST(NULL AS {data_type}) AS {quote(column)}" for column, data_type in columns.items())
    try:
        described = _connection().execute(f"DESCRIBE SELECT TRY({expression}) FROM (SELECT {rows})").fetchall()
    except duckdb.Error as error:
        raise ConfigurationError(path, f"{expression!r} cannot be computed: {_first_line(error)}") from error
    return str(described[-1][1])


def expression_columns(expression: str, path: Path) -> set[str]:
    """The columns that `expression` reads. Raises ConfigurationError at `path` when it is none."""
    nodes = _nodes(_parse(expression, path))
    return {".".join(node["column_names"]) for node in nodes if node.get("class") == "COLUMN_REF"}


def _parse(expression: str, path: Path) -> Any:
    """DuckDB's syntax tree of `expression`."""
    [(text,)] = _connection().execute("SELECT json_serialize_sql(?)", [f"SELECT ({expression}\n)"]).fetchall()
    tree = json.loads(text)
    if tree["error"]:
        raise ConfigurationError(path, f"{expression!r} is no SQL expression: {tree['error_message']}")
    if len(tree["statements"]) != 1 or len(tree["statements"][0]["node"].get("select_list", [])) != 1:
        raise ConfigurationError(path, f"{expression!r} is more than one SQL expression")
    return tree["statements"][0]["node"]["select_list"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a syntax tree."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


def _check_function(name: str, path: Path) -> None:
    functions = _deterministic_functions()
    if name not in functions:
        hint = nearest(name, sorted(functions)) if name not in _ENVIRONMENT else "it reads the clock or the session"
        if hint.startswith("allowed"):
            hint = "see DuckDB's scalar functions"
        raise ConfigurationError(path, f"{name!r} is no deterministic scalar function of DuckDB; {hint}")


@lru_cache(maxsize=1)
def _deterministic_functions() -> frozenset[str]:
    """Names of functions whose result follows from their arguments, row by row."""
    rows = _connection().execute(
        "SELECT function_name FROM duckdb_functions() GROUP BY function_name "
        "HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')"
    )
    # A macro that is a CASE.
    return frozenset(name for (name,) in rows.fetchall()) - _ENVIRONMENT | {"nullif"}


@lru_cache(maxsize=1)
def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
