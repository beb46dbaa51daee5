"""`drift_report`: the distance of a window's rows from the data of the version that predicted them. One partition a window.

Distances of features, prediction and label are computed in the lake; one feature `*` holds the reconstruction error of all features together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES, CheckRule, PartitionCheckResult
from mlops_assets.core.keys import DRIFT_REPORT
from mlops_assets.ml.report_rows import DriftRow
from mlops_assets.monitoring.monitor import MonitoringRun, MonitorOfSolution, Report, ReportedWindow
from mlops_assets.monitoring.monitored_windows import STAGED_WINDOW, rows_of_version, sampled_windows
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.column_names import MODEL_VERSION
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.evaluation_page import plot_metadata
from mlops_assets.training.monitoring_reference import VersionReference, load_reference

if TYPE_CHECKING:
    from mlops_assets.monitoring.alerts import Alert


class DriftMonitor:
    """Whether features, predictions and labels of a window are far from the data of the version."""

    title = "Drift"
    description = "Drift of features, prediction and label from the data of the version, by version and slice."
    kinds = ("nannyml", "duckdb")
    code_version = "3"
    asks_for_training = False
    columns = row_columns(DriftRow)

    def rules(self, name: str) -> Sequence[CheckRule]:
        """The check of the share of drifted features."""
        return [check_rules.DRIFT]

    def reads(self, inputs: SolutionInputs) -> Sequence[dg.AssetKey]:
        """Nothing else."""
        return ()

    def measure(self, run: MonitoringRun, of_solution: MonitorOfSolution) -> Report:
        """All measures of every version and window."""
        import pyarrow as pa

        from mlops_assets.ml.drift import to_arrow

        tables = []
        rows: list[DriftRow] = []
        for version in run.versions:
            reference = load_reference(run.registry, run.settings, run.registry.get(run.inputs.name, version))
            version_rows = _measure(run.connection, run.inputs, version, reference)
            rows += version_rows
            tables.append(rows_of_version(to_arrow(version_rows), version))
        shares = {key: _share_of_features([row for row in rows if row.window == key]) for key in run.windows.ranges}
        return Report(
            rows=pa.concat_tables(tables),
            check_results=[_check(run.inputs, rows, *window_and_share) for window_and_share in shares.items()],
            metadata={"summary": dg.MetadataValue.md(_summary(rows, shares)), **_plot(rows)},
            window_metadata={window: {"drifted_share": share} for window, share in shares.items()},
        )

    def find_alerts(self, reported: ReportedWindow, of_solution: MonitorOfSolution) -> "Iterable[Alert]":
        """The columns that drifted on all rows, by effect."""
        from mlops_assets.monitoring.alerts import drift_alerts

        return drift_alerts(reported)


MONITOR = DriftMonitor()


def _measure(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int, reference: VersionReference
) -> "list[DriftRow]":
    """All measures of the windows that `version` predicted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mlops_assets.ml.drift import evaluate_distances
    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.reconstruction import reconstruction_rows
    from mlops_assets.ml.usual_drift import importance_shares
    from mlops_assets.training.drift_distances import measure_distances

    drift_section = inputs.solution.monitoring.drift
    ignored = pc.is_in(reference.summary.columns.column("feature"), pa.array(drift_section.ignore, pa.string()))
    watched = replace(reference.summary, columns=reference.summary.columns.filter(pc.invert(ignored)))
    distances = measure_distances(
        connection,
        rows=f"(FROM {ROWS} WHERE {MODEL_VERSION} = {version})",
        window=STAGED_WINDOW,
        slices=inputs.solution.gates.slices,
        reference=watched,
    )
    features = [name for name in inputs.features if name not in drift_section.ignore]
    rows = evaluate_distances(
        distances,
        watched,
        effect_floor=drift_section.effect_size,
        false_alarms=drift_section.false_alarms,
        usual=reference.usual_drift,
        importance=importance_shares(reference.importance, features),
    )
    cells = max((sum(row.window == window for row in rows) for window in {row.window for row in rows}), default=1)
    rows += reconstruction_rows(
        reference.rows,
        list(sampled_windows(connection, inputs, version).items()),
        FeatureSchema.from_arrow(reference.rows.schema, features),
        false_alarms=drift_section.false_alarms / cells,
        usual=reference.usual_drift,
    )
    return rows


def _share_of_features(rows: "Sequence[DriftRow]") -> float:
    from mlops_assets.ml.drift import drifted_features

    drifted, measured = drifted_features(rows)
    return len(drifted) / len(measured) if measured else 0.0


def _summary(rows: "Sequence[DriftRow]", shares: Mapping[str, float]) -> str:
    from mlops_assets.ml.drift import describe_drift

    lines = [
        f"| {key} | {share:.0%} | {describe_drift([row for row in rows if row.window == key])} |" for key, share in shares.items()
    ]
    return "| window | drifted features | |\n|---|---|---|\n" + "\n".join(lines)


def _plot(rows: "Sequence[DriftRow]") -> dict[str, Any]:
    from mlops_assets.ml.monitoring_plots import drift_plot

    return plot_metadata({"drift": drift_plot(rows)})


def _check(inputs: SolutionInputs, rows: "Sequence[DriftRow]", window: str, share: float) -> PartitionCheckResult:
    from mlops_assets.ml.drift import impact

    limit = inputs.solution.monitoring.drift.maximum_share_of_features
    alerts = sorted(
        (row for row in rows if row.alert and row.window == window and row.slice is None), key=lambda row: -impact(vars(row))
    )
    features = list(dict.fromkeys(row.feature for row in alerts))
    result = check_rules.DRIFT.result(
        inputs.key(DRIFT_REPORT),
        passed=share <= limit,
        metadata={
            "limit": limit,
            "share_of_features": share,
            "features_with_alert": len(features),
            "examples": dg.MetadataValue.json(
                [f"{row.feature}: {row.method} {row.value:.4g}, threshold {row.threshold:.4g}" for row in alerts[:MOST_EXAMPLES]]
            ),
        },
        description=f"{share:.0%} of the features drifted: {', '.join(features[:MOST_EXAMPLES])}" if share > limit else None,
    )
    return PartitionCheckResult.from_result(result, window)
