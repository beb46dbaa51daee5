"""Data quality of the predictions in a window, measured in SQL where the rows are, against the contract of the version and its reference.

A finding names how many rows, the limit and examples. Which windows and versions there are is decided in `monitoring/data_quality_report.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES, CheckRule, PartitionCheckResult
from mlops_assets.core.missing_values import finite_value, is_infinite, is_present
from mlops_assets.lake.sql import is_one_of, quote
from mlops_assets.ml.share_limits import share_limit
from mlops_assets.schema.monitoring_section import DataQuality
from mlops_assets.schema.table_columns import column

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.contract import CategoricalFeature, Contract, NumericFeature

NEARLY_CONSTANT = 0.999
ALL_ROWS = "*"

RULES: Mapping[str, CheckRule] = {
    rule.name: rule
    for rule in (
        check_rules.MISSING_VALUES,
        check_rules.UNSEEN_CATEGORIES,
        check_rules.OUT_OF_RANGE,
        check_rules.DUPLICATE_PREDICTIONS,
        check_rules.CONSTANT_FEATURES,
        check_rules.WINDOW_ROWS,
        check_rules.SCHEMA_CHANGE,
    )
}
"""The checks by name: the values of the column `check`."""


@dataclass(frozen=True)
class QualityFinding:
    """One measure of one window: `value` is a share of its rows (of `window_rows` the rows themselves), `rows` how many it concerns.

    `feature` is `*` for measures of whole rows. `examples` are the most frequent wrong values, as text.
    """

    check: str = column("Name of the check.", accepted=tuple(RULES))
    feature: str = column("The feature, or * for whole rows.")
    value: float = column("Share of the rows that it concerns; of window_rows the number of rows.", minimum=0)
    limit: float = column("The value beyond which it alerts.", minimum=0)
    rows: int = column("How many rows it concerns.", minimum=0)
    examples: str | None = column("The most frequent wrong values, or what changed.")
    alert: bool = column("Whether the limit is passed.")


@dataclass(frozen=True)
class Expectation:
    """The expectation of a window: the contract and, by feature, the reference's summary of all its rows.

    `rows` predictions are expected (None: any number) where `counted`, a SQL condition, is true. Features in `moving` leave their range by
    nature, such as the calendar: their values are not checked.
    """

    contract: "Contract"
    reference: Mapping[str, Mapping]
    rows: float | None
    counted: str
    key: str
    moving: Sequence[str]


def measure_quality(
    connection: duckdb.DuckDBPyConnection, *, rows: str, expected: Expectation, limits: DataQuality, false_alarms: float
) -> list[QualityFinding]:
    """All findings on `rows` (a table, or a query in parentheses), those without an alert included.

    `false_alarms` is the probability that a window in which no share changed has any alert; it is divided among them, as in drift.
    """
    schema = connection.execute(f"FROM {rows} LIMIT 0").to_arrow_table().schema
    changed = list(_schema(schema, expected.contract))
    present = [feature for feature in expected.contract.features if feature.name in schema.names]
    return [
        *changed,
        *_whole(connection, rows, expected, limits),
        *_by_feature(connection, rows, present, expected, limits, false_alarms),
    ]


def check_results(key: dg.AssetKey, findings: Mapping[str, Sequence[QualityFinding]]) -> list[PartitionCheckResult]:
    """One result a check and window (`findings` by window), with all measures counted and the alerts as its evidence."""
    outcomes = []
    for window, part in findings.items():
        for rule in RULES.values():
            measured = [finding for finding in part if finding.check == rule.name]
            alerts = [finding for finding in measured if finding.alert]
            # Without an alert what came nearest to its limit.
            listed = alerts or sorted(measured, key=lambda finding: finding.limit - finding.value)[:MOST_EXAMPLES]
            records = [
                dg.TableRecord(
                    {
                        "window": window,
                        "feature": finding.feature,
                        "value": finding.value,
                        "limit": finding.limit,
                        "rows": finding.rows,
                        "examples": finding.examples or "",
                    }
                )
                for finding in listed
            ]
            features = list(dict.fromkeys(finding.feature for finding in alerts))
            named = ", ".join(features[:3]) + (f" and {len(features) - 3} more" if len(features) > 3 else "")
            result = rule.result(
                key,
                passed=not alerts,
                metadata={
                    "measured": len(measured),
                    "alerts": len(alerts),
                    "maximum_alerts": 0,
                    "examples": dg.MetadataValue.table(records, schema=_ALERT_TABLE),
                },
                description=(window if features == [ALL_ROWS] else f"{named} in {window}") if alerts else None,
            )
            outcomes.append(PartitionCheckResult.from_result(result, window))
    return outcomes


_ALERT_TABLE = dg.TableSchema(
    columns=[
        dg.TableColumn("window"),
        dg.TableColumn("feature"),
        dg.TableColumn("value", "float"),
        dg.TableColumn("limit", "float"),
        dg.TableColumn("rows", "int"),
        dg.TableColumn("examples"),
    ]
)


def _schema(schema: "pa.Schema", contract: "Contract") -> Iterator[QualityFinding]:
    for feature in contract.features:
        actual_type = str(schema.field(feature.name).type) if feature.name in schema.names else "no such column"
        changed = actual_type != feature.type
        yield QualityFinding(
            check=check_rules.SCHEMA_CHANGE.name,
            feature=feature.name,
            value=float(changed),
            limit=0.0,
            rows=0,
            examples=f"{feature.type} in training, {actual_type} now" if changed else None,
            alert=changed,
        )


def _whole(
    connection: duckdb.DuckDBPyConnection, rows: str, expected: Expectation, limits: DataQuality
) -> Iterator[QualityFinding]:
    key = quote(expected.key)
    count, keys, counted = connection.execute(
        f"SELECT count(*), count(DISTINCT {key}), count(*) FILTER (WHERE {expected.counted}) FROM {rows}"
    ).fetchall()[0]
    examples = connection.execute(
        f"SELECT {key} FROM {rows} GROUP BY ALL HAVING count(*) > 1 ORDER BY count(*) DESC, 1 LIMIT 3"
    ).fetchall()
    surplus = count - keys
    yield QualityFinding(
        check=check_rules.DUPLICATE_PREDICTIONS.name,
        feature=ALL_ROWS,
        value=surplus / count if count else 0.0,
        limit=0.0,
        rows=surplus,
        examples=", ".join(str(value) for (value,) in examples) or None,
        alert=surplus > 0,
    )
    if expected.rows is None:
        return
    least, most = (bound * expected.rows for bound in limits.row_count)
    few = counted < least
    yield QualityFinding(
        check=check_rules.WINDOW_ROWS.name,
        feature=ALL_ROWS,
        value=float(counted),
        limit=least if few else most,
        rows=counted,
        examples=f"about {expected.rows:,.0f} were expected",
        alert=few or counted > most,
    )


def _by_feature(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    features: "Sequence[NumericFeature | CategoricalFeature]",
    expected: Expectation,
    limits: DataQuality,
    false_alarms: float,
) -> Iterator[QualityFinding]:
    measures = [
        expression
        for feature in features
        for expression in (
            _known(feature),
            f"count(*) FILTER (WHERE {wrong_value(feature)})",
            f"coalesce(list_max(map_values(histogram({quote(feature.name)}) FILTER ({_present(feature)}))), 0)",
        )
    ]
    total, *counts = connection.execute(f"SELECT count(*), {', '.join(measures)} FROM {rows}").fetchall()[0]
    if not total:
        return
    # Of each feature two shares are compared: of its missing values and of its wrong ones.
    chance = false_alarms / (2 * len(features)) if features else false_alarms
    for position, feature in enumerate(features):
        known, wrong, most_frequent = counts[3 * position : 3 * position + 3]
        reference = expected.reference.get(feature.name)
        usual = reference["missing"] / max(reference["missing"] + reference["rows"], 1) if reference else 0.0
        limit = share_limit(usual + limits.missing_increase, total, chance)
        missing = total - known
        yield QualityFinding(
            check_rules.MISSING_VALUES.name, feature.name, missing / total, limit, missing, None, missing / total > limit
        )
        if feature.name not in expected.moving:
            rule, allowed = (
                (check_rules.OUT_OF_RANGE, limits.maximum_out_of_range)
                if feature.kind == "numeric"
                else (check_rules.UNSEEN_CATEGORIES, limits.maximum_unseen)
            )
            share, most = wrong / total, share_limit(allowed, total, chance)
            examples = _examples(connection, rows, feature) if share > most else None
            yield QualityFinding(rule.name, feature.name, share, most, wrong, examples, share > most)
        if known:
            before = reference["most_frequent"] / reference["rows"] if reference and reference["rows"] else 0.0
            constant = most_frequent / known
            became = constant >= NEARLY_CONSTANT > before
            yield QualityFinding(
                check_rules.CONSTANT_FEATURES.name, feature.name, constant, NEARLY_CONSTANT, most_frequent, None, became
            )


def _known(feature: "NumericFeature | CategoricalFeature") -> str:
    return f"count(*) FILTER ({_present(feature)})"


def _present(feature: "NumericFeature | CategoricalFeature") -> str:
    return is_present(quote(feature.name), numeric=feature.kind == "numeric")


def wrong_value(feature: "NumericFeature | CategoricalFeature") -> str:
    """SQL that is true for a value that training did not see; a missing one is no such value."""
    name = quote(feature.name)
    if feature.kind == "numeric":
        infinite, value = is_infinite(name), finite_value(name)
        if feature.minimum is None or feature.maximum is None:
            return infinite
        # The contract's bounds are float32, as the model reads numbers.
        bounds = f"CAST({feature.minimum!r} AS FLOAT) AND CAST({feature.maximum!r} AS FLOAT)"
        return f"({infinite} OR coalesce(CAST({value} AS FLOAT) NOT BETWEEN {bounds}, false))"
    # As text, which is what the model reads of a category, whatever type the column has by now.
    return f"({name} IS NOT NULL AND NOT {is_one_of(f'CAST({name} AS VARCHAR)', feature.categories)})"


def _examples(connection: duckdb.DuckDBPyConnection, rows: str, feature: "NumericFeature | CategoricalFeature") -> str:
    name = quote(feature.name)
    wrong_values = connection.execute(
        f"SELECT {name}, count(*) FROM {rows} WHERE {wrong_value(feature)} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3"
    ).fetchall()
    return ", ".join(f"{value} ({count} rows)" for value, count in wrong_values)
