"""Profiles of deliveries: a few numbers for each partition and column of a raw table, computed in SQL and kept in the lake.

A new delivery is compared with the profiles of the partitions before it, so that the cost does not grow with the history. The rules are in
`sources/deliveries.py`.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property

import duckdb

from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import table_exists

PROFILES_SCHEMA = "raw_profiles"

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_DISTINCT_VALUES = 10_000
"""Columns of more distinct values in a delivery, such as identifiers, are profiled without their values."""

WHOLE_TABLE = date(1970, 1, 1)
"""The partition of a table that has none."""

_NUMBERS = ("integer", "bigint", "double")
_TIMES = ("date", "timestamp", "timestamptz")
_PROFILED = "temp.main.delivery_profile"


@dataclass(frozen=True)
class ColumnProfile:
    """One column in one partition. `quantiles` are those of `QUANTILES`, of a time in seconds after the start of its partition; null
    without a number. `counts` are the rows of each value, null for a column of too many values.
    """

    partition: date
    column: str
    kind: str
    rows: int
    known: int
    quantiles: tuple[float, ...] | None
    counts: Mapping[str, int] | None

    @property
    def missing(self) -> float:
        """The share of rows without a value."""
        return 1 - self.known / self.rows if self.rows else 0.0

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """The share of each value of `counts` among their rows. Cached: each later partition is compared with it."""
        counts = self.counts or {}
        rows = sum(counts.values())
        return {value: number / rows for value, number in counts.items()}


def profile_delivery(
    connection: duckdb.DuckDBPyConnection,
    *,
    relation: str,
    types: Mapping[str, str],
    partition_column: str | None,
    keys: Sequence[str],
    end: date | None,
) -> list[ColumnProfile]:
    """Profile the columns `types` of `relation`, by the partitions whose first days are `keys`; leaves what `store_query` reads.

    `end` is the first day after the last partition.
    """
    rows = _by_partition(connection, relation, partition_column, keys, end)
    distinct = connection.execute(
        f"SELECT {', '.join(f'approx_count_distinct({quote(column)})' for column in types)} FROM {relation}"
    ).fetchall()[0]
    # One pass over the rows; what follows reads a row each partition.
    measures = [
        measure
        for number, ((_, kind), count) in enumerate(zip(types.items(), distinct, strict=True))
        for measure in _measures(number, kind, f"r.{quote(list(types)[number])}", has_values=count <= MOST_DISTINCT_VALUES)
    ]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE delivery_measures AS "
        f'SELECT p.start AS partition, count(*) AS "rows", {", ".join(measures)} FROM {rows} GROUP BY p.start'
    )
    columns = " UNION ALL ".join(
        f'SELECT partition, {literal(column)} AS "column", {literal(_kind(kind))} AS kind, "rows", known_{number} AS known, '
        f"quantiles_{number} AS quantiles, counts_{number} AS counts FROM temp.main.delivery_measures"
        for number, (column, kind) in enumerate(types.items())
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE delivery_profile AS {columns}")
    return _profiles(connection, f"FROM {_PROFILED}")


def store_query() -> str:
    """SQL for the rows of the profile just made, as `raw_profiles.<table>` holds them."""
    return f"FROM {_PROFILED}"


def preceding_profiles(
    connection: duckdb.DuckDBPyConnection, table: str, *, before: date, partitions: int
) -> list[ColumnProfile]:
    """The profiles of the last `partitions` partitions of the raw `table` that begin before `before` and have a profile."""
    name = f"{PROFILES_SCHEMA}.{table}"
    if not table_exists(connection, name):
        return []
    relation = f"lake.{quote(PROFILES_SCHEMA)}.{quote(table)}"
    inside = f"partition < DATE '{before}'"
    return _profiles(
        connection,
        f"FROM {relation} WHERE {inside} AND partition >= (SELECT min(partition) FROM "
        f"(SELECT DISTINCT partition FROM {relation} WHERE {inside} ORDER BY partition DESC LIMIT {partitions}))",
    )


def last_profile(connection: duckdb.DuckDBPyConnection, table: str) -> list[ColumnProfile]:
    """The profile of the last version of a raw `table` without partitions, dated before `WHOLE_TABLE`."""
    day = WHOLE_TABLE + timedelta(days=1)
    profiles = preceding_profiles(connection, table, before=day, partitions=1)
    return [replace(profile, partition=WHOLE_TABLE - timedelta(days=1)) for profile in profiles]


def _profiles(connection: duckdb.DuckDBPyConnection, query: str) -> list[ColumnProfile]:
    records = connection.execute(
        f'SELECT partition, "column", kind, "rows", known, quantiles, counts {query} ORDER BY partition, "column"'
    ).fetchall()
    return [
        ColumnProfile(
            partition=partition,
            column=column,
            kind=kind,
            rows=rows,
            known=known,
            quantiles=tuple(quantiles) if quantiles and None not in quantiles else None,
            counts=json.loads(counts) if counts is not None else None,
        )
        for partition, column, kind, rows, known, quantiles, counts in records
    ]


def _by_partition(
    connection: duckdb.DuckDBPyConnection, relation: str, column: str | None, keys: Sequence[str], end: date | None
) -> str:
    """SQL for the rows of `relation` as `r` and the first day of their partition as `p.start`."""
    if column is None or end is None:
        return f"{relation} r, (SELECT DATE '{WHOLE_TABLE}' AS start) p"
    starts = [date.fromisoformat(key) for key in sorted(keys)]
    days = [starts[0] + timedelta(days=number) for number in range((end - starts[0]).days)]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE delivery_days AS SELECT unnest(?::DATE[]) AS day, unnest(?::DATE[]) AS start",
        [days, [starts[bisect_right(starts, day) - 1] for day in days]],
    )
    return f"{relation} r JOIN temp.main.delivery_days p ON p.day = r.{quote(column)}"


def _kind(column_type: str) -> str:
    if column_type in _NUMBERS:
        return "number"
    return "time" if column_type in _TIMES else "text"


def _measures(number: int, column_type: str, value: str, *, has_values: bool) -> list[str]:
    """SQL for what is measured of the column `value` in a partition."""
    kind = _kind(column_type)
    quantiles, counts = "NULL::DOUBLE[]", "NULL::VARCHAR"
    if kind == "number":
        quantiles = f"quantile_cont(CAST({value} AS DOUBLE), {list(QUANTILES)}) FILTER (WHERE isfinite(CAST({value} AS DOUBLE)))"
    elif kind == "time":
        seconds = f"(epoch(CAST({value} AS TIMESTAMP)) - epoch(CAST(p.start AS TIMESTAMP)))"
        quantiles = f"quantile_cont({seconds}, {list(QUANTILES)})"
    if has_values and kind != "time":
        counts = f"CAST(to_json(histogram({value})) AS VARCHAR)"
    return [
        f"count({value}) AS known_{number}",
        f"{quantiles} AS quantiles_{number}",
        f"{counts} AS counts_{number}",
    ]
