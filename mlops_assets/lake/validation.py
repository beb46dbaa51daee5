"""Validation of rows against a pandera schema inside DuckDB: types without a query, values as aggregates of one scan.

pandera validates the types on its ibis backend, on a table without rows. Its checks are compiled by ibis to SQL conditions, so that
they are counted beside whatever else is measured of the same rows. Schemas are derived from what YAML, dbt and the reports declare;
`build_schema` makes them, and imports pandera only when it is called.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from mlops_assets.core.check_rules import MOST_EXAMPLES
from mlops_assets.core.missing_values import LARGEST_FLOAT32, is_present
from mlops_assets.lake.schema_evolution import is_widening
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types
from mlops_assets.schema.column_names import fold, internal
from mlops_assets.schema.table_columns import TableColumn, accepted_value

if TYPE_CHECKING:
    import ibis
    import ibis.expr.types as ir
    import pandera.ibis as pandera
    from ibis.expr.datatypes import DataType

_ROWS = internal("rows")
_ABSENT, _FINITE = "column_in_dataframe", "finite"

MISSING = "not_nullable"
"""The check of a column that may not be null, or not a number."""

Measure = TypeVar("Measure", bound=Hashable)
"""Whatever names a SQL aggregate."""


def scan(connection: duckdb.DuckDBPyConnection, relation: str, measures: Mapping[Measure, str]) -> dict[Measure, Any]:
    """All `measures` of the rows of `relation`, a table or a query in parentheses, in one query."""
    values = connection.execute(f"SELECT {', '.join(measures.values())} FROM {relation}").fetchall()[0]
    return dict(zip(measures, values, strict=True))


def scan_by(
    connection: duckdb.DuckDBPyConnection, relation: str, group: str, measures: Mapping[Measure, str]
) -> tuple[dict[Any, dict[Measure, Any]], dict[Measure, Any]]:
    """All `measures` of the rows of `relation` by the SQL expression `group`, and of all rows, in one query.

    A group without rows is absent.
    """
    name = internal("group")
    selected = (
        f"SELECT grouping({name}) = 1, {name}, {', '.join(measures.values())} FROM (SELECT {group} AS {name}, * FROM {relation}) "
        f"GROUP BY GROUPING SETS (({name}), ())"
    )
    groups: dict[Any, dict[Measure, Any]] = {}
    whole: dict[Measure, Any] = {}
    for is_whole, key, *values in connection.execute(selected).fetchall():
        results = dict(zip(measures, values, strict=True))
        if is_whole:
            whole = results
        else:
            groups[key] = results
    return groups, whole


@dataclass(frozen=True)
class Failure:
    """Values of `column` that fail `check`: how many, and a few of them as text, with the keys of their rows."""

    column: str
    check: str
    count: int
    examples: tuple[str, ...]
    keys: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The failure in words."""
        if self.check == _ABSENT:
            return f"{self.column}: no such column"
        if self.check.startswith("dtype"):
            return f"{self.column}: {self.examples[0]}"
        values = "value" if self.count == 1 else "values"
        if self.check == MISSING:
            return f"{self.column}: {self.count} missing {values}"
        wrong = "infinite" if self.check == _FINITE else f"wrong ({self.check})"
        return f"{self.column}: {self.count} {wrong} {values}, such as {', '.join(self.examples)}"


def build_schema(columns: Mapping[str, TableColumn], *, key: Sequence[str]) -> "pandera.DataFrameSchema":
    """The pandera schema of a table with these `columns`, of which those of `key` identify a row (none: no such columns)."""
    import pandera.ibis as pandera

    return pandera.DataFrameSchema(
        {
            name: pandera.Column(
                _stated(column.type),
                list(_checks(column)),
                nullable=column.nullable,
                description=column.description,
            )
            for name, column in columns.items()
        },
        unique=list(key) or None,
    )


def _stated(kind: str | None) -> "DataType | None":
    """The type that pandera compares, None where there is none to compare: none is stated, or ibis has no such type."""
    described = data_type(kind) if kind else None
    return None if described is None or described.is_unknown() else described


def _checks(column: TableColumn) -> "Iterator[pandera.Check]":
    import pandera.ibis as pandera
    from pandera.backends.ibis import builtin_checks  # noqa: F401  registers them: a check made before has no function for ibis

    if column.minimum is not None:
        yield pandera.Check.ge(column.minimum)
    if column.maximum is not None:
        yield pandera.Check.le(column.maximum)
    if column.accepted is not None:
        yield pandera.Check.isin([accepted_value(text, _canonical(column.type or "varchar")) for text in column.accepted])
    if column.finite and (column.type is None or data_type(column.type).is_floating()):
        yield pandera.Check(_is_finite, name=_FINITE, error=_FINITE)


def _is_finite(data: Any) -> "ir.BooleanValue":
    """Whether a model can read the value: float32 holds it. Only floating-point numbers may be beyond."""
    import ibis

    column = data.table[data.key]
    return column.abs() <= LARGEST_FLOAT32 if column.type().is_floating() else ibis.literal(True)


def data_type(kind: str) -> "DataType":
    """The type of ibis for a DuckDB type, by whichever of its names."""
    from ibis.backends.sql.datatypes import DuckDBType

    return DuckDBType.from_string(_canonical(kind))


@lru_cache(maxsize=1000)
def _canonical(kind: str) -> str:
    """The name that DuckDB gives a type."""
    with duckdb.connect() as connection:
        return column_types(connection, f"(SELECT CAST(NULL AS {kind}) AS value)")["value"]


def in_words(column: "pandera.Column") -> str:
    """The bounds of the values of a column."""
    words = {"greater_than_or_equal_to": "at least {:g}", "less_than_or_equal_to": "at most {:g}"}
    parts = []
    for check in column.checks:
        if check.name == "isin":
            accepted = [str(value) for value in check.statistics["allowed_values"]]
            parts.append(f"one of {', '.join(accepted[:MOST_EXAMPLES])}{' ...' if len(accepted) > MOST_EXAMPLES else ''}")
        elif check.name in words:
            parts.append(words[check.name].format(*check.statistics.values()))
        else:
            parts.append(str(check.name))
    return ", ".join(parts)


class Validation:
    """The rules of `schema` for the rows of a relation with the columns `types` (name -> DuckDB type).

    `wrong_columns` are the failures that need no row: columns that are absent or of another type. The failures of values come from
    `measures`, which are aggregates over `relation`.
    """

    def __init__(self, schema: "pandera.DataFrameSchema", types: Mapping[str, str]):
        spelled = {fold(name): name for name in schema.columns}
        # DuckDB compares names without regard to case, ibis does not.
        self._types = {spelled.get(fold(name), name): kind for name, kind in types.items()}
        self._schema = schema
        self._key = [name for name in schema.unique or () if name in self._types]
        table = self._table()
        self.wrong_columns = self._wrong_columns(table)
        conditions = {
            (name, str(check.error or check.name)): _violation(table, name, check)
            for name, column in schema.columns.items()
            if name in self._types and name not in {failure.column for failure in self.wrong_columns}
            for check in column.checks
        }
        flags = {place: internal(f"flag_{number}") for number, place in enumerate(conditions)}
        self._query = _sql(table.mutate(**{flags[place]: condition for place, condition in conditions.items()}))
        # In SQL of our own, as everywhere: missing is null or NaN.
        self._wrong = {
            (name, MISSING): f"NOT {is_present(quote(name), numeric=table[name].type().is_floating())}"
            for name, column in schema.columns.items()
            if name in self._types and not column.nullable
        } | flags

    def relation(self, rows: str) -> str:
        """The query in parentheses of `rows`, a table or a query in parentheses, with a column for each condition."""
        return f"(WITH {quote(_ROWS)} AS (FROM {rows}) {self._query})"

    @property
    def measures(self) -> dict[Hashable, str]:
        """Aggregates that count the values which fail each check."""
        return {("failing", *place): f"count(*) FILTER (WHERE {wrong})" for place, wrong in self._wrong.items()}

    def violated(self, columns: Sequence[str]) -> str:
        """SQL over `relation` that is true for a row of which a value of `columns` fails a check; a missing value fails none."""
        wrong = [condition for (name, check), condition in self._wrong.items() if name in columns and check != MISSING]
        return f"coalesce({' OR '.join(wrong) or 'false'}, false)"

    def failures(self, connection: duckdb.DuckDBPyConnection, rows: str, result: Mapping[Hashable, Any]) -> list[Failure]:
        """The failures in the result of `measures`; the values that fail, and the keys of their rows, are read from `rows` again."""
        failing = {place: wrong for place, wrong in self._wrong.items() if result["failing", *place]}
        if not failing:
            return []
        examples = scan(
            connection, self.relation(rows), {place: self.examples(place[0], wrong) for place, wrong in failing.items()}
        )
        return [
            Failure(name, check, result["failing", name, check], *self.described(examples[name, check], missing=check == MISSING))
            for name, check in failing
        ]

    def examples(self, column: str, condition: str) -> str:
        """An aggregate over `relation`: values of a column in rows of a SQL `condition`, for `described`.

        They are those of the rows with the least keys; without a key the least values.
        """
        fields = {"value": column, **{f"key_{number}": name for number, name in enumerate(self._key)}}
        row = ", ".join(f"'{field}': {quote(name)}" for field, name in fields.items())
        order = ", ".join(map(quote, self._key or [column]))
        return f"arg_min({{{row}}}, ({order}), {MOST_EXAMPLES}) FILTER (WHERE {condition})"

    def described(self, rows: Sequence[Mapping[str, Any]] | None, *, missing: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The values in the result of `examples`, and the keys of their rows; of those that are `missing` the keys alone."""
        records = rows or ()
        values = () if missing else tuple(dict.fromkeys(str(row["value"]) for row in records))
        keys = [" ".join(str(row[f"key_{number}"]) for number in range(len(self._key))) for row in records]
        return values, tuple(keys) if self._key else ()

    def _table(self) -> "ibis.Table":
        """A table of ibis with the columns and no rows. A column that is wider than declared counts as declared: it holds every value."""
        import ibis
        from ibis.backends.sql.datatypes import DuckDBType

        kinds = {name: data_type(kind) for name, kind in self._types.items()}
        for name, column in self._schema.columns.items():
            if column.dtype is None or name not in kinds:
                continue
            dtype = column.dtype.type
            if is_widening(_canonical(DuckDBType.to_string(dtype)), self._types[name]):
                kinds[name] = dtype
        return ibis.table(kinds, name=_ROWS)

    def _wrong_columns(self, table: "ibis.Table") -> list[Failure]:
        from pandera.config import ValidationDepth, config_context
        from pandera.errors import SchemaErrors

        try:
            with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_ONLY):
                self._schema.validate(table, lazy=True)
        except SchemaErrors as errors:
            failures = []
            for error in errors.schema_errors:
                check = str(error.check)
                name = str(error.failure_cases if check == _ABSENT else error.schema.name)
                dtype = None if check == _ABSENT else error.schema.dtype
                text = () if check == _ABSENT else (f"{self._types[name].lower()} instead of {dtype}",)
                failures.append(Failure(name, check, 1, text))
            return failures
        return []


def _violation(table: "ibis.Table", name: str, check: "pandera.Check") -> "ir.BooleanValue":
    """The condition under which a value of a column fails `check`; null for a missing one."""
    import ibis
    from pandera.api.ibis.types import IbisData

    backend: Any = check.get_backend(table)(check)
    passed = backend.check_fn(IbisData(table, name))
    if isinstance(passed, ibis.Table):
        # A built-in check selects its condition from the table.
        passed = passed.op().values[name].to_expr()
    # Not a number is a missing value.
    return ~(passed | table[name].isnan()) if table[name].type().is_floating() else ~passed


def _sql(expression: "ibis.Table") -> str:
    import ibis

    return str(ibis.to_sql(expression, dialect="duckdb", pretty=False))
