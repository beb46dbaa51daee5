"""Checks of raw tables computed in SQL where the rows are: row counts, duplicates, ranges, constant columns, rejected rows.

Each has one result for each partition of the delivery; a table without partitions has one, of the partition `UNPARTITIONED`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import MOST_EXAMPLES, SCHEMA, CheckRule, Evidence
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types
from mlops_assets.lake.validation import MISSING, Failure, Validation, build_schema, in_words, scan_by
from mlops_assets.schema.column_names import internal
from mlops_assets.schema.source import RawTable

UNPARTITIONED = ""
"""The only partition of a table that has none."""

ROW_COUNT = CheckRule(
    name="row_count",
    description="Every partition has at least the expected number of rows.",
    blocking=True,
    evidence=Evidence(measured=("rows",), bound=("minimum",), no_examples="Rows that are lacking cannot be shown."),
)
DUPLICATES = CheckRule(
    name="duplicates",
    description="The key identifies one row.",
    blocking=True,
    evidence=Evidence(measured=("keys_more_than_once", "rows_with_such_keys"), bound=("maximum",), examples=("examples",)),
)
RANGES = CheckRule(
    name="ranges",
    description="Values are within the bounds and lists that the source states. Few outside are a warning, many block.",
    blocking=True,
    evidence=Evidence(measured=("outside", "share_of_rows"), bound=("bounds", "maximum_share"), examples=("examples", "keys")),
)
CONSTANT_COLUMNS = CheckRule(
    name="constant_columns",
    description="No column holds a single value throughout the rows of the run.",
    blocking=False,
    evidence=Evidence(measured=("columns", "rows_of_the_run"), bound=("least_values",), examples=("constant_columns",)),
)
REJECTED_ROWS = CheckRule(
    name="rejected_rows",
    description="The share of rows that could not be parsed stays below the limit.",
    blocking=True,
    evidence=Evidence(
        measured=("rejected", "rejected_without_partition", "share"), bound=("maximum_share",), examples=("reasons",)
    ),
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
    duplicates = {
        name: (keys, rows, examples)
        for name, keys, rows, examples in delivered.connection.execute(
            f"WITH keys AS (SELECT {partition}, {names}, count(*) AS {count} FROM "
            f"(SELECT {delivered.partition} AS {partition}, r.* FROM {delivered.relation} r SEMI JOIN ({repeated}) d ON {matches}) "
            f"GROUP BY ALL) SELECT {partition}, count(*), sum({count}), "
            f"list([{texts}] ORDER BY {names})[:{MOST_EXAMPLES}] FROM keys GROUP BY 1"
        ).fetchall()
    }
    return {
        name: duplicates_result(key, columns=columns, keys=keys, rows=rows, examples=examples)
        for name in delivered.keys
        for keys, rows, examples in [duplicates.get(name, (0, 0, []))]
    }


def duplicates_result(
    key: dg.AssetKey, *, columns: Sequence[str], keys: int, rows: int, examples: Sequence[Sequence[str]]
) -> dg.AssetCheckResult:
    """The result of `duplicates`: how many `keys` of the `columns` occur more than once, in how many rows, and some of them."""
    return DUPLICATES.result(
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


class MeasuredRows:
    """The measures of the delivered rows of each partition that the checks of a raw table need, from one scan.

    `varying` are the columns that should take more than one value in a run.
    """

    def __init__(self, delivered: DeliveredRows, table: RawTable, *, varying: Sequence[str]):
        self._delivered, self._table, self._varying = delivered, table, varying
        self._schema = build_schema(table.table_columns, key=table.key)
        self._validation = Validation(self._schema, column_types(delivered.connection, delivered.relation))
        measures: dict[Hashable, str] = {"rows": "count(*)", "outside": self._count(table.bounded)}
        measures |= {("outside", name): self._count([name]) for name in table.bounded}
        measures |= {place: sql for place, sql in self._validation.measures.items() if place in self._missing}
        for name, column in zip(varying, map(quote, varying), strict=True):
            same = f"min({column}) IS NOT DISTINCT FROM max({column}) AND count({column}) IN (0, count(*))"
            measures |= {("constant", name): same, ("value", name): f"CAST(min({column}) AS VARCHAR)"}
        self._relation = self._validation.relation(delivered.relation)
        self._measured, self._whole = scan_by(delivered.connection, self._relation, delivered.partition, measures)
        self._nothing = dict.fromkeys(measures, 0)

    @property
    def _missing(self) -> dict[Hashable, str]:
        required = [name for name, column in self._table.columns.items() if column.required]
        return {("failing", name, MISSING): name for name in required}

    def _count(self, columns: Sequence[str]) -> str:
        return f"count(*) FILTER (WHERE {self._validation.violated(columns)})"

    @property
    def rows(self) -> dict[str, int]:
        """The rows of each partition."""
        return {name: self._of(name)["rows"] for name in self._delivered.keys}

    def _of(self, partition: str) -> Mapping[Hashable, Any]:
        return self._measured.get(partition, self._nothing)

    def check_schema(self, key: dg.AssetKey) -> Outcomes:
        """Whether every column has its type, and a value where one is required."""
        wrong = {name: sum(self._of(name).get(place, 0) for place in self._missing) for name in self._delivered.keys}
        outcomes = {}
        for partition in self._delivered.keys:
            failures = list(self._validation.wrong_columns)
            if wrong[partition]:
                failures += [
                    Failure(name, MISSING, count, (), ())
                    for place, name in self._missing.items()
                    if (count := self._of(partition).get(place, 0))
                ]
            outcomes[partition] = SCHEMA.result(
                key,
                passed=not failures,
                metadata={
                    "columns": len(self._table.columns),
                    "required": len(self._missing),
                    "maximum_failures": 0,
                    "failures": dg.MetadataValue.json([failure.as_dict() for failure in failures]),
                },
                description="; ".join(map(str, failures)) or None,
            )
        return outcomes

    def check_ranges(self, key: dg.AssetKey) -> Outcomes:
        """Whether the values of each bounded column are inside; blocks when more than `maximum_outside_share` of the rows of a partition
        have one outside, as when the unit of a column has changed.
        """
        bounded, maximum_share = self._table.bounded, self._table.maximum_outside_share
        wrong = [name for name in bounded if self._whole["outside", name]]
        examples: dict[Any, dict[str, Any]] = {}
        if wrong:
            measures = {name: self._validation.examples(name, self._validation.violated([name])) for name in wrong}
            examples, _ = scan_by(self._delivered.connection, self._relation, self._delivered.partition, measures)
        outcomes = {}
        for partition in self._delivered.keys:
            counts = self._of(partition)
            outside = {name: counts["outside", name] for name in bounded if counts["outside", name]}
            share = counts["outside"] / counts["rows"] if counts["rows"] else 0.0
            described = {name: self._validation.described(examples[partition][name], missing=False) for name in outside}
            outcomes[partition] = replace(RANGES, blocking=share > maximum_share).result(
                key,
                passed=not outside,
                metadata={
                    "bounds": dg.MetadataValue.json({name: in_words(self._schema.columns[name]) for name in bounded}),
                    "outside": dg.MetadataValue.json(outside),
                    "examples": dg.MetadataValue.json({name: list(values) for name, (values, _) in described.items()}),
                    "keys": dg.MetadataValue.json({name: list(keys) for name, (_, keys) in described.items()}),
                    "rows": counts["rows"],
                    "share_of_rows": share,
                    "maximum_share": maximum_share,
                },
                description=f"values outside the bounds in {', '.join(outside)}, {share:.1%} of the rows" if outside else None,
            )
        return outcomes

    def check_constant_columns(self, key: dg.AssetKey) -> Outcomes:
        """Whether each of the varying columns takes more than one value in the rows of the run, null counted as a value. One row alone passes.

        In one partition a column may well hold one value: the run has one answer, which each of its partitions gets.
        """
        rows = self._whole["rows"]
        constant = {name: self._whole["value", name] for name in self._varying if rows > 1 and self._whole["constant", name]}
        result = CONSTANT_COLUMNS.result(
            key,
            passed=not constant,
            metadata={
                "rows_of_the_run": rows,
                "columns": len(self._varying),
                "least_values": 2,
                "constant_columns": dg.MetadataValue.json(constant),
            },
            description=f"constant: {', '.join(constant)}" if constant else None,
        )
        return dict.fromkeys(self._delivered.keys, result)


def check_rejected_rows(
    key: dg.AssetKey, *, accepted: Mapping[str, int], rejected: Mapping[str, RejectedRows], maximum_share: float, rejects: str
) -> Outcomes:
    """Whether at most `maximum_share` of the rows of each partition of `accepted` are rejected.

    `rejected` may have rows of no partition (the key `UNPARTITIONED`), which count for each in proportion to its rows. All rejected rows are in
    the lake table `rejects`.
    """
    placed = {name: rows + (rejected[name].rows if name in rejected else 0) for name, rows in accepted.items()}
    unplaced = rejected.get(UNPARTITIONED, RejectedRows()) if set(accepted) != {UNPARTITIONED} else RejectedRows()
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
