"""Checks of raw tables computed in SQL where the rows are: row counts, duplicates, ranges, constant columns, rejected rows.

Each has one result for each partition of the delivery; a table without partitions has one, of the partition `WHOLE`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import MOST_EXAMPLES, CheckRule
from mlops_assets.lake.lake import literal, quote
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.delivery_findings import Finding

WHOLE = ""
"""The only partition of a table that has none."""

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

    def __str__(self) -> str:
        """The bounds in words."""
        parts = [
            f"at least {self.minimum:g}" if self.minimum is not None else "",
            f"at most {self.maximum:g}" if self.maximum is not None else "",
        ]
        if self.accepted is not None:
            parts.append(
                f"one of {', '.join(self.accepted[:MOST_EXAMPLES])}{' ...' if len(self.accepted) > MOST_EXAMPLES else ''}"
            )
        return ", ".join(filter(None, parts))


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


Outcomes = dict[str, dg.AssetCheckResult]
"""The result of one check for each partition."""


@dataclass(frozen=True)
class DeliveredRows:
    """The rows of a SQL `relation` in parentheses, the SQL for the partition of a row, and the partitions that were asked for."""

    connection: duckdb.DuckDBPyConnection
    relation: str
    partition: str
    keys: Sequence[str]


@dataclass
class RejectedRows:
    """How many rows of a partition were rejected, and the most frequent reasons with their counts."""

    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def check_row_count(key: dg.AssetKey, *, rows: Mapping[str, int], keys: Sequence[str], minimum: int) -> Outcomes:
    """Whether each partition has `minimum` rows."""
    return {
        partition: ROW_COUNT.result(
            key,
            passed=rows.get(partition, 0) >= minimum,
            metadata={"rows": rows.get(partition, 0), "minimum": minimum},
            description=None
            if rows.get(partition, 0) >= minimum
            else f"{rows.get(partition, 0)} rows, at least {minimum} expected",
        )
        for partition in keys
    }


def check_duplicates(delivered: DeliveredRows, key: dg.AssetKey, *, columns: Sequence[str]) -> Outcomes:
    """Whether no two rows of the delivery have the same values in `columns`. Of two partitions that share a key neither passes."""
    names, count = ", ".join(quote(column) for column in columns), internal("rows")
    repeated = f"SELECT {names} FROM {delivered.relation} GROUP BY {names} HAVING count(*) > 1"
    partition = internal("partition")
    matches = " AND ".join(f"r.{quote(column)} IS NOT DISTINCT FROM d.{quote(column)}" for column in columns)
    texts = ", ".join(f"CAST({quote(column)} AS VARCHAR)" for column in columns)
    found = {
        name: (keys, rows, examples)
        for name, keys, rows, examples in delivered.connection.execute(
            f"WITH keys AS (SELECT {partition}, {names}, count(*) AS {count} FROM "
            f"(SELECT {delivered.partition} AS {partition}, r.* FROM {delivered.relation} r SEMI JOIN ({repeated}) d ON {matches}) "
            f"GROUP BY ALL) SELECT {partition}, count(*), sum({count}), "
            f"list([{texts}] ORDER BY {names})[:{MOST_EXAMPLES}] FROM keys GROUP BY 1"
        ).fetchall()
    }
    outcomes = {}
    for name in delivered.keys:
        keys, rows, examples = found.get(name, (0, 0, []))
        outcomes[name] = DUPLICATES.result(
            key,
            passed=not keys,
            metadata={
                "key": ", ".join(columns),
                "keys_more_than_once": int(keys),
                "rows_with_such_keys": int(rows),
                "maximum": 0,
                "examples": dg.MetadataValue.json([[str(value) for value in row] for row in examples]),
            },
            description=f"{keys} keys occur more than once" if keys else None,
        )
    return outcomes


def check_ranges(delivered: DeliveredRows, key: dg.AssetKey, *, bounds: Mapping[str, Bounds], maximum_share: float) -> Outcomes:
    """Whether the values of each bounded column are inside; blocks when more than `maximum_share` of the rows of a partition have one
    outside, as when the unit of a column has changed.
    """
    connection, relation = delivered.connection, delivered.relation
    violations = {column: bound.violation(column) for column, bound in bounds.items()}
    counts = ", ".join(f"count(*) FILTER (WHERE {violation})" for violation in violations.values())
    counted = {
        name: measured
        for name, *measured in connection.execute(
            f"SELECT {delivered.partition}, count(*), count(*) FILTER (WHERE {' OR '.join(violations.values())}), {counts} "
            f"FROM {relation} GROUP BY 1"
        ).fetchall()
    }
    wrong_columns = [column for number, column in enumerate(bounds) if any(each[2 + number] for each in counted.values())]
    examples = {
        column: dict(
            connection.execute(
                f"SELECT {delivered.partition}, list(DISTINCT {quote(column)} ORDER BY {quote(column)})[:{MOST_EXAMPLES}] "
                f"FROM {relation} WHERE {violations[column]} GROUP BY 1"
            ).fetchall()
        )
        for column in wrong_columns
    }
    outcomes = {}
    for name in delivered.keys:
        rows, wrong, *by_column = counted.get(name, [0, 0, *(0 for _ in bounds)])
        outside = {column: count for column, count in zip(bounds, by_column, strict=True) if count}
        share = wrong / rows if rows else 0.0
        outcomes[name] = replace(RANGES, blocking=share > maximum_share).result(
            key,
            passed=not outside,
            metadata={
                "bounds": dg.MetadataValue.json({column: str(bound) for column, bound in bounds.items()}),
                "outside": dg.MetadataValue.json(outside),
                "examples": dg.MetadataValue.json(
                    {column: [str(value) for value in examples[column][name]] for column in outside}
                ),
                "rows": rows,
                "share_of_rows": share,
                "maximum_share": maximum_share,
            },
            description=f"values outside the bounds in {', '.join(outside)}, {share:.1%} of the rows" if outside else None,
        )
    return outcomes


def check_delivery(key: dg.AssetKey, findings: Mapping[str, Sequence[Finding]], *, keys: Sequence[str], before: int) -> Outcomes:
    """Whether `findings`, the differences of each partition from those before it, hold nothing notable; gross ones block.

    `before` is the number of earlier partitions that have a profile.
    """
    outcomes = {}
    for name in keys:
        of_partition = findings.get(name, ())
        gross = [finding for finding in of_partition if finding.is_gross]
        shown = [*gross, *(finding for finding in of_partition if not finding.is_gross)][:_SHOWN_DIFFERENCES]
        outcomes[name] = replace(DELIVERY, blocking=bool(gross)).result(
            key,
            passed=not of_partition,
            metadata={
                "gross_differences": len(gross),
                "notable_differences": len(of_partition) - len(gross),
                "maximum_differences": 0,
                "partitions_before": before,
                "differences": dg.MetadataValue.json([finding.evidence for finding in shown]),
            },
            description="; ".join(str(finding) for finding in shown[:3]) if of_partition else None,
        )
    return outcomes


def check_constant_columns(delivered: DeliveredRows, key: dg.AssetKey, *, columns: Sequence[str]) -> Outcomes:
    """Whether each of `columns` takes more than one value in the rows of the run, null counted as a value. One row alone passes.

    In one partition a column may well hold one value: the run has one answer, which each of its partitions gets.
    """
    measures = "".join(
        f", min({n}) IS NOT DISTINCT FROM max({n}) AND count({n}) IN (0, count(*)), CAST(min({n}) AS VARCHAR)"
        for n in map(quote, columns)
    )
    rows, *measured = delivered.connection.execute(f"SELECT count(*){measures} FROM {delivered.relation}").fetchall()[0]
    constant = {
        column: value
        for column, is_constant, value in zip(columns, measured[::2], measured[1::2], strict=True)
        if is_constant and rows > 1
    }
    result = CONSTANT_COLUMNS.result(
        key,
        passed=not constant,
        metadata={
            "rows_of_the_run": rows,
            "columns": len(columns),
            "least_values": 2,
            "constant_columns": dg.MetadataValue.json(constant),
        },
        description=f"constant: {', '.join(constant)}" if constant else None,
    )
    return dict.fromkeys(delivered.keys, result)


def check_rejected_rows(
    key: dg.AssetKey, *, accepted: Mapping[str, int], rejected: Mapping[str, RejectedRows], maximum_share: float, rejects: str
) -> Outcomes:
    """Whether at most `maximum_share` of the rows of each partition of `accepted` are rejected.

    `rejected` may have rows of no partition (the key `WHOLE`), which count for each in proportion to its rows. All rejected rows are in
    the lake table `rejects`.
    """
    placed = {name: rows + (rejected[name].rows if name in rejected else 0) for name, rows in accepted.items()}
    unplaced = rejected.get(WHOLE, RejectedRows()) if set(accepted) != {WHOLE} else RejectedRows()
    total = sum(placed.values())
    outcomes = {}
    for name, rows in placed.items():
        own = rejected.get(name, RejectedRows())
        part = unplaced.rows * (rows / total if total else 1 / len(placed))
        share = (own.rows + part) / (rows + part) if rows + part else 0.0
        reasons = own.reasons | unplaced.reasons
        most_frequent = sorted(reasons.items(), key=lambda item: -item[1])[:MOST_EXAMPLES]
        wrong = own.rows + unplaced.rows
        outcomes[name] = REJECTED_ROWS.result(
            key,
            passed=share <= maximum_share,
            metadata={
                "rejected": own.rows,
                "rejected_without_partition": unplaced.rows,
                "share": share,
                "maximum_share": maximum_share,
                "reasons": dg.MetadataValue.json(dict(most_frequent)),
                "all_rows": f'mlops sql "FROM {rejects}"',
            },
            description=f"{wrong} rows rejected, see {rejects}" if wrong else None,
        )
    return outcomes
