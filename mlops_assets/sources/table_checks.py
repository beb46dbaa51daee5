"""Checks of lake tables computed in SQL where the rows are: row counts, duplicates, ranges, constant columns, rejected rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import CheckRule
from mlops_assets.lake.lake import literal, quote
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.delivery_findings import Finding

_SHOWN_REASONS = 5
"""A reason names its line or value: a bad file has as many as rows, and they are in the table of rejects."""
_SHOWN_DIFFERENCES = 20


@dataclass(frozen=True)
class Bounds:
    """Accepted values of one column; a value outside is a finding."""

    minimum: float | None
    maximum: float | None
    accepted: Sequence[str] | None

    def violation(self, column: str) -> str:
        """SQL that is true for a value outside the bounds; null values are inside."""
        name = quote(column)
        conditions = []
        if self.minimum is not None:
            conditions.append(f"{name} < {self.minimum}")
        if self.maximum is not None:
            conditions.append(f"{name} > {self.maximum}")
        if self.accepted is not None:
            conditions.append(f"{name} NOT IN ({', '.join(literal(value) for value in self.accepted)})")
        return f"({' OR '.join(conditions)})"


ROW_COUNT = CheckRule(name="row_count", description="Every partition has at least the expected number of rows.", blocking=True)
DUPLICATES = CheckRule(name="duplicates", description="The key identifies one row.", blocking=True)
RANGES = CheckRule(
    name="ranges",
    description="Values are within the bounds and lists that the source states. Few outside are a warning, many block.",
    blocking=True,
)
CONSTANT_COLUMNS = CheckRule(
    name="constant_columns", description="No column holds a single value throughout the rows of the run.", blocking=False
)
REJECTED_ROWS = CheckRule(
    name="rejected_rows", description="The share of rows that could not be parsed stays below the limit.", blocking=True
)

DELIVERY = CheckRule(
    name="delivery",
    description="Each partition is like those before it: rows, missing values, distribution, unit, categories, times. Gross differences block.",
    blocking=True,
)


def check_row_count(
    key: dg.AssetKey, *, rows_by_partition: Mapping[str, int], partition_keys: Sequence[str], minimum: int
) -> dg.AssetCheckResult:
    """Whether each partition key has `minimum` rows; an unpartitioned table passes its rows under one key."""
    short = {name: rows_by_partition.get(name, 0) for name in partition_keys if rows_by_partition.get(name, 0) < minimum}
    return ROW_COUNT.result(
        key,
        passed=not short,
        metadata={"minimum": minimum, "partitions": len(partition_keys), "too_few_rows": dg.MetadataValue.json(short)},
        description=f"{len(short)} of {len(partition_keys)} partitions have fewer than {minimum} rows" if short else None,
    )


def check_duplicates(
    connection: duckdb.DuckDBPyConnection, key: dg.AssetKey, *, relation: str, columns: Sequence[str]
) -> dg.AssetCheckResult:
    """Whether `columns` identify one row of `relation` (a table or a query in parentheses)."""
    names, rows = ", ".join(quote(column) for column in columns), internal("rows")
    found = connection.execute(
        f"SELECT count(*), coalesce(sum({rows} - 1), 0) "
        f"FROM (SELECT count(*) AS {rows} FROM {relation} GROUP BY {names} HAVING count(*) > 1)"
    ).fetchall()[0]
    examples = connection.execute(
        f"SELECT {names}, count(*) AS {rows} FROM {relation} GROUP BY {names} HAVING count(*) > 1 ORDER BY ALL LIMIT 5"
    ).fetchall()
    return DUPLICATES.result(
        key,
        passed=found[0] == 0,
        metadata={
            "key": ", ".join(columns),
            "surplus_rows": int(found[1]),
            "examples": dg.MetadataValue.json([[str(value) for value in row] for row in examples]),
        },
        description=f"{found[0]} keys occur more than once" if found[0] else None,
    )


def check_ranges(
    connection: duckdb.DuckDBPyConnection,
    key: dg.AssetKey,
    *,
    relation: str,
    bounds: Mapping[str, Bounds],
    maximum_share: float,
) -> dg.AssetCheckResult:
    """Whether the values of each bounded column of `relation` are inside; blocks when more than `maximum_share` of the rows have one
    outside, as when the unit of a column has changed.
    """
    violations = {column: bound.violation(column) for column, bound in bounds.items()}
    counts = ", ".join(f"count(*) FILTER (WHERE {violation})" for violation in violations.values())
    rows, wrong, *by_column = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE {' OR '.join(violations.values())}), {counts} FROM {relation}"
    ).fetchall()[0]
    outside = {column: count for column, count in zip(bounds, by_column, strict=True) if count}
    examples = {
        column: [
            str(value)
            for (value,) in connection.execute(
                f"SELECT DISTINCT {quote(column)} FROM {relation} WHERE {violations[column]} ORDER BY 1 LIMIT 5"
            ).fetchall()
        ]
        for column in outside
    }
    share = wrong / rows if rows else 0.0
    return replace(RANGES, blocking=share > maximum_share).result(
        key,
        passed=not outside,
        metadata={
            "outside": dg.MetadataValue.json(outside),
            "examples": dg.MetadataValue.json(examples),
            "share_of_rows": share,
            "maximum_share": maximum_share,
        },
        description=f"values outside the bounds in {', '.join(outside)}, {share:.1%} of the rows" if outside else None,
    )


def check_delivery(key: dg.AssetKey, findings: Sequence[Finding], *, before: int) -> dg.AssetCheckResult:
    """Whether `findings`, the differences from the `before` earlier partitions that have a profile, hold nothing notable; gross ones block."""
    gross = [finding for finding in findings if finding.is_gross]
    shown = [*gross, *(finding for finding in findings if not finding.is_gross)][:_SHOWN_DIFFERENCES]
    return replace(DELIVERY, blocking=bool(gross)).result(
        key,
        passed=not findings,
        metadata={
            "gross_differences": len(gross),
            "notable_differences": len(findings) - len(gross),
            "partitions_before": before,
            "differences": dg.MetadataValue.json([finding.evidence for finding in shown]),
        },
        description="; ".join(str(finding) for finding in shown[:3]) if findings else None,
    )


def check_constant_columns(
    connection: duckdb.DuckDBPyConnection, key: dg.AssetKey, *, relation: str, columns: Sequence[str]
) -> dg.AssetCheckResult:
    """Whether each of `columns` takes more than one value in `relation`, null counted as a value. A table of one row passes."""
    rows, *distinct = connection.execute(
        f"SELECT count(*), {', '.join(f'min({n}) IS NOT DISTINCT FROM max({n}) AND count({n}) IN (0, count(*))' for n in map(quote, columns))} "
        f"FROM {relation}"
    ).fetchall()[0]
    constant = [column for column, is_constant in zip(columns, distinct, strict=True) if is_constant and rows > 1]
    return CONSTANT_COLUMNS.result(
        key,
        passed=not constant,
        metadata={"constant_columns": dg.MetadataValue.json(constant)},
        description=f"constant: {', '.join(constant)}" if constant else None,
    )


def check_rejected_rows(
    key: dg.AssetKey, *, accepted: int, reasons: Mapping[str, int], maximum_share: float, rejects: str
) -> dg.AssetCheckResult:
    """Whether the share of rejected rows is at most `maximum_share`; `reasons` counts them by cause, and the most frequent are shown.

    All rejected rows are in the lake table `rejects`.
    """
    rejected = sum(reasons.values())
    share = rejected / (accepted + rejected) if rejected else 0.0
    shown = dict(Counter(reasons).most_common(_SHOWN_REASONS))
    return REJECTED_ROWS.result(
        key,
        passed=share <= maximum_share,
        metadata={
            "rejected": rejected,
            "share": share,
            "maximum_share": maximum_share,
            "reasons": dg.MetadataValue.json(shown),
            "all_rows": f'mlops sql "FROM {rejects}"',
        },
        description=f"{rejected} rows rejected, see {rejects}" if rejected else None,
    )
