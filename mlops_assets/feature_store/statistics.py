"""Statistics of feature views: the SQL that computes them where the rows are, and reading what was stored.

One row a partition and feature. When and for which partitions they are computed is decided in `features/statistics_assets.py`.
"""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import duckdb

from mlops_assets.core.missing_values import finite_value, is_infinite, numeric_value
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import table_exists
from mlops_assets.schema.column_names import internal

PARTITION = "partition"
"""DATE column: the first day of the partition; null for a view that has none."""

COLUMN_DESCRIPTIONS = {
    PARTITION: "First day of the partition; null for a view without partitions",
    "view": "Feature view",
    "version": "Version of the view",
    "feature": "Feature",
    "rows": "Rows of the partition",
    "missing_share": "Share of rows without a value: null or NaN",
    "distinct_values": "Different values",
    "most_frequent_share": "Share of the rows with a value that hold the most frequent one; 1 = constant",
    "mean": "Mean of a number; a boolean counts as 0 or 1",
    "standard_deviation": "Sample standard deviation of a number",
    "minimum": "Smallest number",
    "quantile_05": "5 % quantile, interpolated",
    "quantile_25": "25 % quantile, interpolated",
    "median": "Median, interpolated",
    "quantile_75": "75 % quantile, interpolated",
    "quantile_95": "95 % quantile, interpolated",
    "maximum": "Largest number",
    "infinite_values": "Infinite numbers, which count in no number above",
}
"""The columns of a table of statistics."""

_QUANTILES = {"quantile_05": 0.05, "quantile_25": 0.25, "median": 0.5, "quantile_75": 0.75, "quantile_95": 0.95}
_TEXT_TYPES = ("VARCHAR", "DATE", "TIME", "UUID", "BLOB", "ENUM", "INTERVAL", "STRUCT", "MAP")


def statistics_query(view: FeatureView, *, types: dict[str, str], starts: Sequence[str]) -> str:
    """SQL for the statistics of every feature of `view`, in one pass over its rows.

    `types` are the DuckDB types of the table's columns. `starts` are the first days of the consecutive partitions to describe and
    then the day after the last; a view without partitions is described whole.
    """
    column = view.model.partition_column
    if column is None:
        partition, where = "NULL::DATE", ""
    else:
        start = internal("start")
        days = ", ".join(f"DATE {literal(start)}" for start in starts[:-1])
        # The newest partition that starts on or before the row's date. A list is quicker than a join, and daily needs neither.
        partition = f"list_last(list_filter([{days}], lambda {start}: {start} <= {quote(column)}))"
        if _daily(starts):
            partition = quote(column)
        where = f" WHERE {quote(column)} >= DATE {literal(starts[0])} AND {quote(column)} < DATE {literal(starts[-1])}"
    described = ", ".join(_describe(feature, types[feature]) for feature in view.features)
    return (
        f"SELECT {PARTITION}, {literal(view.name)} AS view, {view.version} AS version, unnest(described, recursive := true) "
        f"FROM (SELECT {partition} AS {PARTITION}, unnest([{described}]) AS described "
        f"FROM {lake_name(view.model.table)}{where} GROUP BY 1)"
    )


def newest_statistics(connection: duckdb.DuckDBPyConnection, *, table: str, view: str, version: int) -> list[dict[str, Any]]:
    """The stored statistics of the view's newest partition, one entry a feature; none when `table` holds none."""
    if not table_exists(connection, table):
        return []
    result = connection.execute(
        f"SELECT * EXCLUDE (view, version, _loaded_at) FROM lake.{table} WHERE view = ? AND version = ? "
        f"QUALIFY rank() OVER (ORDER BY {PARTITION} DESC) = 1 ORDER BY feature",
        [view, version],
    )
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def statistics_history(connection: duckdb.DuckDBPyConnection, *, table: str, view: str, version: int) -> list[dict[str, Any]]:
    """The stored statistics of a view by partition, the oldest first; none without the table."""
    if not table_exists(connection, table):
        return []
    result = connection.execute(
        f"SELECT * EXCLUDE (view, version, _loaded_at) FROM lake.{table} WHERE view = ? AND version = ? "
        f"ORDER BY {PARTITION} NULLS FIRST, feature",
        [view, version],
    )
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _daily(starts: Sequence[str]) -> bool:
    days = [date.fromisoformat(start).toordinal() for start in starts]
    return all(later - earlier == 1 for earlier, later in pairwise(days))


def _describe(feature: str, data_type: str) -> str:
    """A struct with the statistics of one column, as an aggregate."""
    name = quote(feature)
    is_number = not data_type.startswith(_TEXT_TYPES) and not data_type.endswith("[]")
    present = numeric_value(name) if is_number else name
    measured = finite_value(name) if is_number else "NULL::DOUBLE"
    infinite = f"count(*) FILTER ({is_infinite(name)})" if is_number else "0"
    # The same aggregate in several places is computed once: one sort and one histogram a column.
    quantile = f"quantile_cont({measured}, {list(_QUANTILES.values())})"
    quantiles = ", ".join(f"{key}: {quantile}[{position}]" for position, key in enumerate(_QUANTILES, start=1))
    frequencies = f"histogram({present})"
    mean, deviation = _rounded(f"favg({measured})"), _rounded(f"stddev_samp({measured})")
    return (
        f"{{feature: {literal(feature)}, rows: count(*), missing_share: 1 - count({present}) / count(*), "
        f"distinct_values: coalesce(cardinality({frequencies}), 0)::BIGINT, "
        f"most_frequent_share: list_max(map_values({frequencies})) / nullif(count({present}), 0), "
        f"mean: {mean}, standard_deviation: {deviation}, minimum: min({measured}), "
        f"{quantiles}, maximum: max({measured}), infinite_values: {infinite}}}"
    )


def _rounded(value: str) -> str:
    # Threads add up in any order: with ten digits, the same rows give the same numbers and a second run changes nothing.
    return f"format('{{:.9e}}', {value})::DOUBLE"
