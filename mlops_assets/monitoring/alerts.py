"""The alerts of a window, gathered from its reports, worst first, each with the SQL that finds the rows behind it.

The page of the window and `mlops debug` show the same alerts and the same rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow.compute as pc

from mlops_assets.core.keys import DATA_QUALITY_REPORT, DRIFT_REPORT, PERFORMANCE_REPORT
from mlops_assets.core.missing_values import finite_value, is_present
from mlops_assets.lake.sql import is_one_of, literal, quote
from mlops_assets.lake.tables import table_exists
from mlops_assets.ml.charts import number_text
from mlops_assets.ml.drift import impact
from mlops_assets.ml.performance_words import describe_limits, evaluated_value
from mlops_assets.ml.reference import OTHER_CATEGORY, WHOLE, Reference
from mlops_assets.ml.report_rows import METHOD_NAMES
from mlops_assets.monitoring.data_quality import wrong_value
from mlops_assets.monitoring.monitor import ReportedWindow, monitors_of
from mlops_assets.monitoring.monitored_windows import STAGED_WINDOW, WINDOW, MonitoredVersion
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.column_names import MODEL_VERSION, OUTPUTS, PREDICTION_ID
from mlops_assets.schema.metric_names import metric_aspect
from mlops_assets.serving.contract import Contract
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.monitoring_reference import VersionReference

EXAMPLES = 5
_WHAT = {
    "missing_values": "missing in {value:.1%} of the rows (limit {limit:.1%})",
    "unseen_categories": "{value:.1%} of the rows have a value that the model never saw: {examples}",
    "out_of_range": "{value:.1%} of the rows are outside the range seen in training: {examples}",
    "duplicate_predictions": "{rows:,} predictions are there again: {examples}",
    "constant_features": "one value in {value:.1%} of the rows",
    "window_rows": "{rows:,} predictions, {examples}",
    "schema_change": "{examples}",
}


@dataclass(frozen=True)
class Alert:
    """One alert in words. `rows` is a SQL condition on the staged rows (None when no row shows it), `order` puts the clearest first."""

    source: str
    version: int
    feature: str
    sentence: str
    rows: str | None
    order: str | None


def report_rows(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, stage: str, window: str) -> list[dict[str, Any]]:
    """The rows of one report on one window; none when it was not materialized."""
    table = inputs.table(stage)
    if not table_exists(connection, table):
        return []
    return connection.execute(f"FROM lake.{table} WHERE {WINDOW} = DATE '{window}' ORDER BY ALL").to_arrow_table().to_pylist()


def find_alerts(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: str, monitored_versions: Mapping[int, MonitoredVersion]
) -> list[Alert]:
    """The alerts of a window on all rows of each version, by monitor.

    The rows of the window are staged already (`monitored_windows.stage_rows`).
    """
    reported = ReportedWindow(connection, inputs, window, monitored_versions)
    return [
        alert
        for solution_monitor in monitors_of(inputs.solution)
        for alert in solution_monitor.monitor.find_alerts(reported, solution_monitor)
    ]


def _rows(reported: ReportedWindow, stage: str) -> list[dict[str, Any]]:
    return report_rows(reported.connection, reported.inputs, stage, reported.window)


def performance_alerts(reported: ReportedWindow) -> list[Alert]:
    """The metrics that are worse on all rows, first the one that models are chosen by."""
    rows = [row for row in _rows(reported, PERFORMANCE_REPORT) if row["alert"] and row["slice"] is None]
    rows.sort(key=lambda row: row["metric"] != reported.inputs.solution.training.metric)
    return [_performance(reported.inputs, row) for row in rows]


def quality_alerts(reported: ReportedWindow) -> list[Alert]:
    """The findings beyond their limits, those of the same rows together."""
    rows = [row for row in _rows(reported, DATA_QUALITY_REPORT) if row["alert"]]
    return [_quality(part, reported.monitored_versions[part[0][MODEL_VERSION]].contract) for part in _together(rows)]


def drift_alerts(reported: ReportedWindow) -> list[Alert]:
    """The columns that drifted on all rows, each by its clearest distance, by effect."""
    drift: dict[tuple[int, str], dict[str, Any]] = {}
    for row in _rows(reported, DRIFT_REPORT):
        key = (row[MODEL_VERSION], row["feature"])
        if row["alert"] and row["slice"] is None and (key not in drift or impact(row) > impact(drift[key])):
            drift[key] = row
    return [
        _drift(reported.connection, reported.window, row, reported.monitored_versions[row[MODEL_VERSION]].reference)
        for row in sorted(drift.values(), key=impact, reverse=True)
    ]


def alert_rows(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: str, alert: Alert, *, limit: int
) -> list[dict[str, Any]]:
    """Rows behind an alert: id, time, prediction, label if known, and the feature that the alert is about."""
    if alert.rows is None:
        return []
    spine = inputs.solution.spine
    present = [row[0] for row in connection.execute(f"DESCRIBE FROM {ROWS}").fetchall()]
    columns = (PREDICTION_ID, spine.prediction_time, *OUTPUTS[:3], spine.label, alert.feature)
    names = ", ".join(quote(name) for name in dict.fromkeys(columns) if name in present)
    order = f"{alert.order}, {PREDICTION_ID}" if alert.order else PREDICTION_ID
    return (
        connection.execute(
            f"SELECT {names} FROM {ROWS} WHERE {STAGED_WINDOW} = DATE '{window}' AND {MODEL_VERSION} = {alert.version} AND ({alert.rows}) "
            f"ORDER BY {order} LIMIT {limit}"
        )
        .to_arrow_table()
        .to_pylist()
    )


def _performance(inputs: SolutionInputs, row: Mapping[str, Any]) -> Alert:
    value, kind = evaluated_value(row)
    label, problem = quote(inputs.solution.spine.label), inputs.solution.problem
    error = {
        "binary_classification": f"abs(score - CAST({label} AS DOUBLE))",
        "multiclass_classification": f"CASE WHEN CAST(predicted_label AS VARCHAR) = CAST({label} AS VARCHAR) THEN 0 ELSE score END",
        "regression": f"abs(value - CAST({label} AS DOUBLE))",
    }[problem]
    return Alert(
        source="performance",
        version=row[MODEL_VERSION],
        feature=row["metric"],
        sentence=f"{metric_aspect(row['metric'])}: {row['metric']} is {number_text(value or 0.0)} ({kind}), on the hold-out it was "
        f"{number_text(row['reference'])}{describe_limits(row, number_text)}",
        rows=f"{label} IS NOT NULL",
        order=f"{error} DESC",
    )


def _together(quality: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The findings of one check that concern equally many rows, as the features of one view do that are missing together."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in quality:
        groups.setdefault((row[MODEL_VERSION], row["check"], row["rows"] or row["feature"], row["examples"]), []).append(row)
    return list(groups.values())


def _quality(rows: list[dict[str, Any]], contract: Contract) -> Alert:
    row, *others = rows
    named = ", ".join(other["feature"] for other in others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    feature = next((contract_feature for contract_feature in contract.features if contract_feature.name == row["feature"]), None)
    condition = None
    if row["check"] == "missing_values":
        condition = f"NOT {is_present(quote(row['feature']), numeric=feature is not None and feature.kind == 'numeric')}"
    elif row["check"] in ("unseen_categories", "out_of_range") and feature is not None:
        condition = wrong_value(feature)
    elif row["check"] == "duplicate_predictions":
        mine = f"{MODEL_VERSION} = {row[MODEL_VERSION]} AND {STAGED_WINDOW} = DATE '{row[WINDOW]}'"
        condition = f"{PREDICTION_ID} IN (SELECT {PREDICTION_ID} FROM {ROWS} WHERE {mine} GROUP BY 1 HAVING count(*) > 1)"
    return Alert(
        source="data quality",
        version=row[MODEL_VERSION],
        feature="whole rows" if row["feature"] == "*" else row["feature"],
        sentence=_WHAT[row["check"]].format(**row) + (f"; like {named}" if others else ""),
        rows=condition,
        order=None,
    )


def _drift(connection: duckdb.DuckDBPyConnection, window: str, row: Mapping[str, Any], reference: VersionReference) -> Alert:
    sentence = f"{METHOD_NAMES[row['method']]} {number_text(row['value'])}, usual is up to {number_text(row['threshold'])}"
    if row.get("windows"):
        sentence += f", farther than {row['windows'] - (row['farther'] or 0)} of {row['windows']} windows of the training window"
    if row["effect"] is not None:
        sentence += f"; effect {number_text(row['effect'])}"
    if row.get("importance") is not None:
        sentence += f"; {row['importance']:.0%} of the importance"
    condition = None if row["feature"] == "*" else grown_share(connection, window, row, reference.summary)
    return Alert(
        source="drift",
        version=row[MODEL_VERSION],
        feature="all features together" if row["feature"] == "*" else row["feature"],
        sentence=sentence,
        rows=condition,
        order=None,
    )


def grown_share(connection: duckdb.DuckDBPyConnection, window: str, row: Mapping[str, Any], summary: Reference) -> str | None:
    """SQL for the rows in the decile of the reference, or of the category, whose share grew most; None for a window without values."""
    name = row["feature"]
    columns = summary.columns.filter((pc.field("slice") == WHOLE) & (pc.field("feature") == name))
    described = next(iter(columns.to_pylist()), None)
    if described is None or not described["rows"]:
        return None
    binning = "decile" if described["numeric"] else "category"
    masses = summary.masses.filter(
        (pc.field("slice") == WHOLE) & (pc.field("feature") == name) & (pc.field("binning") == binning)
    )
    known = {mass["bin"]: mass["rows"] / described["rows"] for mass in masses.to_pylist()}
    column = finite_value(quote(name)) if described["numeric"] else f"CAST({quote(name)} AS VARCHAR)"
    inside = f"{STAGED_WINDOW} = DATE '{window}' AND {MODEL_VERSION} = {row[MODEL_VERSION]} AND ({column}) IS NOT NULL"
    if described["numeric"]:
        # The number of edges below a value is the position of its bin.
        edges = described["deciles"]
        bin_of_row = f"CAST(len(list_filter({edges!r}::DOUBLE[], lambda edge: edge < ({column}))) AS VARCHAR)"
    else:
        kept = [value for value in known if value != OTHER_CATEGORY]
        bin_of_row = f"CASE WHEN {is_one_of(column, kept)} THEN {column} ELSE {literal(OTHER_CATEGORY)} END"
        bin_of_row = bin_of_row if described["collapsed"] else column
    counts = dict(
        connection.execute(f"SELECT {bin_of_row}, count(*) FROM {ROWS} WHERE {inside} GROUP BY 1 ORDER BY 1").fetchall()
    )
    if not counts:
        return None
    rows = sum(counts.values())
    grown = max(counts, key=lambda name: counts[name] / rows - known.get(name, 0.0))
    return f"({column}) IS NOT NULL AND ({bin_of_row}) = {literal(grown)}"
