"""The rows of one table before and after a change: schema, statistics of each column, and changed values by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types
from mlops_assets.schema.column_names import internal, is_audit

_PRESENT, _BEFORE, _AFTER = internal("present"), internal("before"), internal("after")
_NUMERIC = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
)
_MOST_EXAMPLES = 5


@dataclass(frozen=True)
class ColumnStatistics:
    """Type, share of nulls, about how many distinct values, and the mean of a number or of a boolean."""

    type: str
    null_share: float | None
    distinct: int
    mean: float | None


@dataclass(frozen=True)
class ColumnDiff:
    """A column before and after; None where it is not there. `changed` counts rows of both whose values differ, None without a key."""

    name: str
    before: ColumnStatistics | None
    after: ColumnStatistics | None
    changed: int | None
    examples: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether there is anything to show."""
        return self.before != self.after or bool(self.changed)


@dataclass(frozen=True)
class TableDiff:
    """The compared rows of a table. Without a `key` that is unique in both, rows cannot be told apart and only statistics are compared.

    `renamed` are pairs of a column that went and one that came, whose values are the same in every row.
    """

    table: str
    key: tuple[str, ...]
    rows_before: int
    rows_after: int
    added: int | None
    removed: int | None
    changed: int | None
    columns: tuple[ColumnDiff, ...]
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything is not as it was."""
        return any(column.differs for column in self.columns) or bool(self.added or self.removed or self.changed)


def compare_tables(
    connection: duckdb.DuckDBPyConnection, *, table: str, before: str, after: str, keys: Sequence[Sequence[str]]
) -> TableDiff:
    """Compare the rows of the queries `before` and `after`, by the first of `keys` that is unique in both. Audit columns do not count."""
    types = [_types(connection, query) for query in (before, after)]
    for name, query in ((_BEFORE, before), (_AFTER, after)):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    try:
        statistics = [_statistics(connection, name, of_side) for name, of_side in zip((_BEFORE, _AFTER), types, strict=True)]
        rows = [connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in (_BEFORE, _AFTER)]
        key = next((tuple(key) for key in keys if _is_unique(connection, key, types)), ())
        common = [name for name in types[0] if name in types[1] and name not in key]
        joined = _Joined(connection, key) if key else None
        added, removed, differing = joined.count_rows(common) if joined else (None, None, None)
        changed = joined.count_values(common) if joined else {}
        went, came = ([name for name in one if name not in other] for one, other in (types, types[::-1]))
        renamed = joined.find_renamed(went, came, types) if joined else ()
        columns = tuple(
            ColumnDiff(
                name,
                statistics[0].get(name),
                statistics[1].get(name),
                changed.get(name),
                joined.examples(name) if joined and changed.get(name) else (),
            )
            for name in dict.fromkeys([*types[0], *types[1]])
        )
    finally:
        connection.execute(f"DROP TABLE IF EXISTS {_BEFORE}; DROP TABLE IF EXISTS {_AFTER}")
    return TableDiff(
        table,
        key,
        rows_before=rows[0],
        rows_after=rows[1],
        added=added,
        removed=removed,
        changed=differing,
        columns=columns,
        renamed=renamed,
    )


class _Joined:
    """The staged rows of before and after, joined by a key."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, key: Sequence[str]):
        self._connection = connection
        self._key = key
        on = " AND ".join(f"b.{quote(name)} IS NOT DISTINCT FROM a.{quote(name)}" for name in key)
        sides = (f"(SELECT true AS {_PRESENT}, * FROM {name})" for name in (_BEFORE, _AFTER))
        self._rows = "{} b FULL JOIN {} a ON ".format(*sides) + on
        self._both = f"b.{_PRESENT} AND a.{_PRESENT}"

    def count_rows(self, columns: Sequence[str]) -> tuple[int, int, int]:
        """How many rows came, went, and have another value in one of `columns`."""
        differs = " OR ".join(map(_differs, columns)) or "false"
        [row] = self._connection.execute(
            f"SELECT count(*) FILTER (b.{_PRESENT} IS NULL), count(*) FILTER (a.{_PRESENT} IS NULL), "
            f"count(*) FILTER ({self._both} AND ({differs})) FROM {self._rows}"
        ).fetchall()
        return row

    def count_values(self, columns: Sequence[str]) -> dict[str, int]:
        """How many rows of both have another value in each of `columns`."""
        if not columns:
            return {}
        counted = ", ".join(f"count(*) FILTER ({_differs(name)})" for name in columns)
        [row] = self._connection.execute(f"SELECT {counted} FROM {self._rows} WHERE {self._both}").fetchall()
        return dict(zip(columns, row, strict=True))

    def find_renamed(
        self, went: Sequence[str], came: Sequence[str], types: Sequence[Mapping[str, str]]
    ) -> tuple[tuple[str, str], ...]:
        """The pairs of a column that went and one that came with the same values, which are not all null."""
        renamed = []
        for old in went:
            for new in came:
                if types[0][old] != types[1][new]:
                    continue
                [(values, other)] = self._connection.execute(
                    f"SELECT count(b.{quote(old)}), count(*) FILTER (b.{quote(old)} IS DISTINCT FROM a.{quote(new)}) "
                    f"FROM {self._rows} WHERE {self._both}"
                ).fetchall()
                if values and not other:
                    renamed.append((old, new))
        return tuple(renamed)

    def examples(self, column: str) -> tuple[str, ...]:
        """Some changed values with their keys."""
        key = " || ', ' || ".join(f"coalesce(CAST(b.{quote(name)} AS VARCHAR), 'null')" for name in self._key)
        values = " || ' → ' || ".join(f"coalesce(CAST({side}.{quote(column)} AS VARCHAR), 'null')" for side in "ba")
        rows = self._connection.execute(
            f"SELECT {key} || ': ' || {values} FROM {self._rows} WHERE {self._both} AND {_differs(column)} "
            f"ORDER BY ALL LIMIT {_MOST_EXAMPLES}"
        ).fetchall()
        return tuple(text for (text,) in rows)


def _differs(column: str) -> str:
    return f"a.{quote(column)} IS DISTINCT FROM b.{quote(column)}"


def _types(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    return {name: kind for name, kind in column_types(connection, f"({query})").items() if not is_audit(name)}


def _is_unique(connection: duckdb.DuckDBPyConnection, key: Sequence[str], types: Sequence[Mapping[str, str]]) -> bool:
    if not key or any(name not in of_side for name in key for of_side in types):
        return False
    names = ", ".join(map(quote, key))
    return not any(
        connection.execute(f"SELECT 1 FROM {table} GROUP BY {names} HAVING count(*) > 1 LIMIT 1").fetchall()
        for table in (_BEFORE, _AFTER)
    )


def _statistics(connection: duckdb.DuckDBPyConnection, table: str, types: Mapping[str, str]) -> dict[str, ColumnStatistics]:
    parts = ["count(*)"]
    for name, kind in types.items():
        column = quote(name)
        is_number = kind in (*_NUMERIC, "BOOLEAN") or kind.startswith("DECIMAL")
        mean = f"avg(CAST({column} AS DOUBLE)) FILTER (isfinite(CAST({column} AS DOUBLE)))" if is_number else "NULL"
        parts += [f"count({column})", f"approx_count_distinct({column})", mean]
    [(rows, *values)] = connection.execute(f"SELECT {', '.join(parts)} FROM {table}").fetchall()
    return {
        name: ColumnStatistics(kind, 1 - values[3 * place] / rows if rows else None, *values[3 * place + 1 : 3 * place + 3])
        for place, (name, kind) in enumerate(types.items())
    }
