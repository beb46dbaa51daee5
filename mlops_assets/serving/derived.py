"""Derived features: SQL expressions over what the caller of a model supplies, one definition for the lake and for requests.

The SQL that computes them, and its evaluation on the rows of a request, belong here. What an expression may say is checked when the
YAML is loaded, in `components/derived_features.py`.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from mlops_assets.serving.contract import Contract


def with_derived(query: str, expressions: Mapping[str, str]) -> str:
    """SQL for the rows of `query` with one more column for each of `expressions` (name -> DuckDB SQL over its columns).

    An expression that fails for a row, such as a cast of a text that is no number, gives null for that row.
    """
    if not expressions:
        return query
    columns = ", ".join(f"TRY({expression}) AS {_quote(name)}" for name, expression in expressions.items())
    return f"SELECT *, {columns} FROM ({query})"


class DerivedFeatures:
    """The derived features of one contract, computed by DuckDB as in the lake. Safe to call from several threads.

    Holds a DuckDB connection, which a forked process must not inherit: make one in each process.
    """

    def __init__(self, contract: "Contract"):
        self._types = {column.name: column.type for column in contract.request_columns}
        self.names = tuple(feature.name for feature in contract.derived_features)
        self._lock = threading.Lock()
        if not self.names:
            return
        expressions = {feature.name: feature.expression for feature in contract.derived_features}
        selected = ", ".join(map(_quote, self.names))
        # One row after another costs less than starting threads.
        self._connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
        self._connection.execute("SET TimeZone = 'UTC'")
        # Most requests have one row, which costs half without lists.
        for statement, column in (("one_row", "CAST({0} AS {1})"), ("many_rows", "unnest(CAST({0} AS {1}[]))")):
            columns = (
                f"{column.format(f'${number}', supplied.type)} AS {_quote(supplied.name)}"
                for number, supplied in enumerate(contract.request_columns, start=1)
            )
            query = with_derived(f"SELECT {', '.join(columns)}", expressions)
            self._connection.execute(f"PREPARE {statement} AS SELECT {selected} FROM ({query})")

    def evaluate(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The derived values of each of `rows`, which map every request column of the contract to its value (None = unknown).

        A value of another type is converted to the type of its column. Raises ValueError when a column is absent, or a value has
        no such form.
        """
        if not self.names:
            return [{} for _ in rows]
        if absent := [name for name in self._types if any(name not in row for row in rows)]:
            raise ValueError(f"The request lacks {', '.join(absent)}: give null for what is not known.")
        # Literals, since DuckDB's Python client imports pandas, half a second and 60 MB, as soon as it is given a parameter. Those
        # of another type than the parameter would plan the statement anew.
        columns = {name: [_literal(name, row[name]) for row in rows] for name in self._types}
        if len(rows) == 1:
            arguments = [f"CAST({values[0]} AS {self._types[name]})" for name, values in columns.items()]
            statement = f"EXECUTE one_row({', '.join(arguments)})"
        else:
            arguments = [f"CAST([{', '.join(values)}] AS {self._types[name]}[])" for name, values in columns.items()]
            statement = f"EXECUTE many_rows({', '.join(arguments)})"
        try:
            with self._lock:
                results = self._connection.execute(statement).fetchall()
        except (duckdb.BinderException, duckdb.ConversionException, duckdb.InvalidInputException) as error:
            raise ValueError(f"A value of the request is not of its column's type: {error}") from error
        return [dict(zip(self.names, row, strict=True)) for row in results]


def _literal(name: str, value: Any) -> str:
    """`value` as a SQL literal; an integer or a floating-point number keeps every bit."""
    match value:
        case None:
            return "NULL"
        case bool() | int():
            return str(value)
        case float():
            # A bare 0.1 would be a decimal.
            return f"'{value!r}'::DOUBLE"
        case str() if "\0" not in value:
            return "'" + value.replace("'", "''") + "'"
    raise ValueError(f"{name}: {value!r} is {type(value).__name__}; give a string without NUL, a number, a boolean or null.")


def _quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
