"""The check of derived features: DuckDB's own parser and binder read each expression when the YAML is loaded."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import duckdb

from mlops_assets.lake.sql import quote
from mlops_assets.schema.configuration_errors import ConfigurationError, nearest
from mlops_assets.serving.derived import with_derived

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

_FEATURE_TYPES = (
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
)


def check_derived(name: str, expression: str, *, columns: Mapping[str, str], path: Path) -> None:
    """Raise ConfigurationError at `path` unless `expression` makes a feature of one row's request `columns` (name -> SQL type).

    It may read those columns only, and call deterministic scalar functions only, so that it means the same in the lake and in a
    server; its result is a number, a string or a boolean.
    """
    for node in _nodes(_parse(expression, path)):
        kind = node.get("class")
        if kind in _FORBIDDEN:
            raise ConfigurationError(
                path, f"{_FORBIDDEN[kind]} has no place in a derived feature: use the columns of one request"
            )
        if kind == "COLUMN_REF":
            column = ".".join(node["column_names"])
            if column not in columns:
                raise ConfigurationError(path, f"{column!r} is no column of `request`; {nearest(column, list(columns))}")
        if kind == "FUNCTION":
            _check_function(node["function_name"], path)
    if untyped := [column for column, data_type in columns.items() if not data_type]:
        raise ConfigurationError(path, f"declare the data_type of {', '.join(untyped)} in the dbt model of the spine")
    rows = ", ".join(f"CAST(NULL AS {data_type}) AS {quote(column)}" for column, data_type in columns.items())
    try:
        described = _connection().execute(f"DESCRIBE {with_derived(f'SELECT {rows}', {name: expression})}").fetchall()
    except duckdb.Error as error:
        raise ConfigurationError(path, f"{expression!r} cannot be computed: {_first_line(error)}") from error
    data_type = described[-1][1]
    if data_type not in _FEATURE_TYPES and not data_type.startswith("DECIMAL"):
        raise ConfigurationError(path, f"{expression!r} is {data_type}, which no model reads: cast it to a number or a string")


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
