"""`performance_report`: the performance of a window's predictions, estimated until their labels are known. One partition a window."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import CheckRule, PartitionCheckResult
from mlops_assets.core.keys import PERFORMANCE_REPORT
from mlops_assets.engine.engine import open_engine
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.monitoring.monitor import MonitoringRun, MonitorOfSolution, Report, ReportedWindow
from mlops_assets.monitoring.monitored_windows import rows_of_version, window_rows
from mlops_assets.monitoring.window_performance import version_performance
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.stages.clock import data_clock
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.evaluation_page import plot_metadata

if TYPE_CHECKING:
    from mlops_assets.monitoring.alerts import Alert


class PerformanceMonitor:
    """The monitor of the quality of the predictions of a window."""

    title = "Performance"
    description = "Estimated and realised performance, by version and slice."
    kinds = ("nannyml", "duckdb")
    code_version = "2"
    asks_for_training = False
    columns = row_columns(PerformanceRow)

    def rules(self, name: str) -> Sequence[CheckRule]:
        """The checks of the metrics, and of the estimate of the one that models are chosen by."""
        return [check_rules.PERFORMANCE, check_rules.ESTIMATE_AGREES]

    def reads(self, inputs: SolutionInputs) -> Sequence[dg.AssetKey]:
        """The spine, whose newest partition is the clock."""
        return [inputs.spine_key]

    def measure(self, run: MonitoringRun, of_solution: MonitorOfSolution) -> Report:
        """All metrics of every version, window and slice."""
        import pyarrow as pa

        from mlops_assets.ml.monitoring_plots import performance_plot
        from mlops_assets.ml.performance import to_arrow

        inputs, metric = run.inputs, run.inputs.solution.training.metric
        rows: list[PerformanceRow] = []
        tables = []
        as_of = data_clock(run.connection, inputs)
        with open_engine(run.settings.engine, run.settings) as engine:
            for version in run.versions:
                windows = window_rows(run.connection, inputs, version)
                version_rows = version_performance(
                    inputs, run.load(version), windows, windows=run.windows, as_of=as_of, engine=engine
                )
                rows += version_rows
                tables.append(rows_of_version(to_arrow(version_rows), version))
        evaluated = [row for row in rows if row.metric == metric and row.slice is None]
        others = [row for row in rows if row.alert and row.metric != metric and row.slice is None]
        plot = performance_plot(evaluated, metric)
        return Report(
            rows=pa.concat_tables(tables),
            check_results=[
                result
                for window in run.windows.ranges
                for result in (_performance(inputs, rows, window), _agreement(inputs, rows, window))
            ],
            metadata={"summary": dg.MetadataValue.md(_summary([*evaluated, *others])), **plot_metadata({"performance": plot})},
            window_metadata={window: {"as_of": dg.MetadataValue.timestamp(as_of)} for window in run.windows.ranges},
        )

    def find_alerts(self, reported: ReportedWindow, of_solution: MonitorOfSolution) -> "Iterable[Alert]":
        """The metrics that are worse on all rows, first the one that models are chosen by."""
        from mlops_assets.monitoring.alerts import performance_alerts

        return performance_alerts(reported)


MONITOR = PerformanceMonitor()


def _summary(evaluated: "Sequence[PerformanceRow]") -> str:
    from mlops_assets.stages.evidence import format_value

    header = ("window", "metric", "estimated", "realised", "hold-out", "threshold", "labels known", "")
    lines = []
    for row in evaluated:
        values = [format_value(value) for value in (row.estimated, row.realised, row.reference, row.threshold)]
        known = f"{row.matured_share:.0%}{'' if row.complete else ' (partial)'}"
        lines.append((row.window, row.metric, *values, known, "**alert**" if row.alert else ""))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def _performance(inputs: SolutionInputs, rows: "Sequence[PerformanceRow]", window: str) -> PartitionCheckResult:
    from mlops_assets.ml.performance_words import describe_performance

    of_window = [row for row in rows if row.window == window and row.slice is None]
    alerts = [row for row in of_window if row.alert]
    result = check_rules.PERFORMANCE.result(
        inputs.key(PERFORMANCE_REPORT),
        passed=not alerts,
        metadata={
            "metrics_with_alert": [row.metric for row in alerts],
            "threshold": dg.MetadataValue.json({row.metric: row.threshold for row in of_window}),
            "windows": dg.MetadataValue.md(_summary(of_window)),
        },
        description=f"{window}: {describe_performance(list(map(vars, of_window)), inputs.solution.training.metric)}"
        if alerts
        else None,
    )
    return PartitionCheckResult.from_result(result, window)


def _agreement(inputs: SolutionInputs, rows: "Sequence[PerformanceRow]", window: str) -> PartitionCheckResult:
    """Whether the estimate of a complete window was right; that of a partial one cannot be checked yet."""
    from mlops_assets.ml.performance import estimation_error

    metric = inputs.solution.training.metric
    evaluated = [
        row
        for row in rows
        if row.window == window and row.metric == metric and row.slice is None and row.estimated is not None and row.complete
    ]
    errors = [float(row.realised - row.estimated) for row in evaluated if row.realised is not None and row.estimated is not None]
    is_off = any(estimation_error(row) is not None for row in evaluated)
    unknown = None if errors else "the window is not complete yet"
    result = check_rules.ESTIMATE_AGREES.result(
        inputs.key(PERFORMANCE_REPORT),
        passed=not is_off,
        metadata={
            "metric": metric,
            "tolerance": dg.MetadataValue.json({row.metric: row.effect for row in evaluated}),
            "is_complete": bool(errors),
            "realised_minus_estimated": dg.MetadataValue.json(errors),
            "windows": dg.MetadataValue.md(_summary(evaluated)),
        },
        description=f"the estimate was off in {window}" if is_off else unknown,
    )
    return PartitionCheckResult.from_result(result, window)
