"""`performance_report`: the performance of a window's predictions, estimated until their labels are known. One partition a window."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import CheckRule, PartitionCheckResult
from mlops_assets.core.keys import PERFORMANCE_REPORT
from mlops_assets.core.prediction_columns import predictions_array
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.monitoring.monitor import MonitoringRun, MonitorOfSolution, Report, ReportedWindow
from mlops_assets.monitoring.monitored_windows import MonitoredVersion, Windows, rows_of_version, window_rows
from mlops_assets.schema.duration import add_duration
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.stages.clock import data_clock
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.candidate_evaluation import decision_threshold
from mlops_assets.training.evaluation_page import plot_metadata
from mlops_assets.training.reference_period import evaluated_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.ml.performance import Limits, UsualPerformance
    from mlops_assets.ml.performance_estimation import Estimate
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
        for version in run.versions:
            windows = window_rows(run.connection, inputs, version)
            version_rows = _rows(inputs, run.load(version), windows, windows=run.windows, as_of=as_of)
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


def _rows(
    inputs: SolutionInputs,
    monitored_version: MonitoredVersion,
    tables: "Mapping[str, pa.Table]",
    *,
    windows: Windows,
    as_of: datetime,
) -> "list[PerformanceRow]":
    """The rows of all windows that a version predicted (`tables`); NannyML is fitted once for all of them."""
    from mlops_assets.ml.performance import Maturity, performance_rows
    from mlops_assets.ml.reference import row_slices

    solution = inputs.solution
    slices = {window: row_slices(table, solution.gates.slices) for window, table in tables.items()}
    estimates = _estimate(inputs, monitored_version, slices)
    matured = {
        window: {name: part.num_rows - part.column(solution.spine.label).null_count for name, part in parts.items()}
        for window, parts in slices.items()
    }
    usual = _usual(inputs, monitored_version, matured.values(), solution.gates.slices)
    rows: list[PerformanceRow] = []
    for window, table in tables.items():
        complete = is_complete(inputs, windows.end(window), as_of)
        rows += performance_rows(
            window,
            metrics=solution.metrics,
            maturity={name: Maturity(part.num_rows, matured[window][name], complete) for name, part in slices[window].items()},
            estimates={(name, metric): value for ((chunk, name), metric), value in estimates.items() if chunk == window},
            realised=_realised(inputs, monitored_version, table),
            usual=usual,
            limits=_limits(inputs),
        )
    return rows


def is_complete(inputs: SolutionInputs, end: date, as_of: datetime) -> bool:
    """Whether all labels that will come of a window before `end` had the time to come at `as_of`."""
    return as_of >= inputs.midnight(add_duration(end, inputs.solution.monitoring.performance.label_delay))


def performance_with_labels(
    inputs: SolutionInputs,
    monitored_version: MonitoredVersion,
    reported: "Sequence[PerformanceRow]",
    labelled: "pa.Table | None",
    *,
    complete: bool,
) -> "list[PerformanceRow]":
    """Return the `reported` rows of all predictions of one window, one a metric, with the labels of the rows `labelled` instead."""
    from mlops_assets.ml.performance import Maturity, performance_rows
    from mlops_assets.ml.performance_estimation import Estimate
    from mlops_assets.ml.reference import WHOLE

    estimates = {}
    for row in reported:
        if row.estimated is not None and row.estimated_lower is not None and row.estimated_upper is not None:
            estimates[WHOLE, row.metric] = Estimate(row.estimated, row.estimated_lower, row.estimated_upper)
    return performance_rows(
        reported[0].window,
        metrics=[row.metric for row in reported],
        maturity={WHOLE: Maturity(reported[0].rows, labelled.num_rows if labelled else 0, complete)},
        estimates=estimates,
        realised=_evaluate(inputs, monitored_version, labelled, ()) if labelled else None,
        usual=_usual(inputs, monitored_version, [{WHOLE: labelled.num_rows if labelled else 0}], ()),
        limits=_limits(inputs),
    )


def _estimate(
    inputs: SolutionInputs, monitored_version: MonitoredVersion, slices: "Mapping[str, Mapping[str, pa.Table]]"
) -> "dict[tuple[tuple[str, str], str], Estimate]":
    from mlops_assets.ml.performance_estimation import PredictionChunk, estimate_metrics, estimated_metrics

    solution = inputs.solution
    return estimate_metrics(
        solution.problem,
        reference=monitored_version.reference.rows,
        label=solution.spine.label,
        chunks=[PredictionChunk((window, name), part) for window, parts in slices.items() for name, part in parts.items()],
        schema=monitored_version.contract.feature_schema,
        classes=monitored_version.contract.classes,
        metrics=estimated_metrics(solution.problem, solution.training.metric),
    )


def _limits(inputs: SolutionInputs) -> "Limits":
    from mlops_assets.ml.performance import Limits

    performance_section = inputs.solution.monitoring.performance
    return Limits(performance_section.tolerance, performance_section.tolerances, performance_section.false_alarms)


def _usual(
    inputs: SolutionInputs,
    monitored_version: MonitoredVersion,
    matured: "Iterable[Mapping[str, int]]",
    slice_columns: Sequence[str],
) -> "UsualPerformance":
    """The performance on the hold-out, and by how much it exceeds that on fewer rows: for all numbers of `matured` rows by slice."""
    from mlops_assets.ml.performance import UsualPerformance
    from mlops_assets.ml.reference import row_slices
    from mlops_assets.ml.reference_windows import excess_of
    from mlops_assets.schema.metric_names import METRICS

    solution, reference = inputs.solution, monitored_version.reference
    biased = [metric for metric in solution.metrics if METRICS.get(metric).biased_upwards]
    slices = row_slices(reference.rows, slice_columns) if biased else {}
    evaluated = {name: evaluated_rows(inputs, monitored_version.contract, part) for name, part in slices.items()}
    evaluations, columns = monitored_version.evaluations, tuple(slice_columns)
    if columns not in evaluations:
        evaluations[columns] = _evaluate(inputs, monitored_version, reference.rows, columns)
    sizes = {(name, count) for counts in matured for name, count in counts.items() if name in evaluated}
    return UsualPerformance(
        evaluation=evaluations[columns],
        variation=reference.variation,
        excess={
            (name, metric, count): excess_of(evaluated[name], metric, count, solution.training.seed)
            for name, count in sizes
            for metric in biased
        },
    )


def _realised(inputs: SolutionInputs, monitored_version: MonitoredVersion, table: "pa.Table") -> "Evaluation | None":
    import pyarrow.compute as pc

    known = table.filter(pc.is_valid(table.column(inputs.solution.spine.label)))
    return _evaluate(inputs, monitored_version, known, inputs.solution.gates.slices) if known.num_rows else None


def _evaluate(
    inputs: SolutionInputs, monitored_version: MonitoredVersion, table: "pa.Table", slice_columns: Sequence[str]
) -> "Evaluation":
    from mlops_assets.ml.evaluation import Resampling, evaluate
    from mlops_assets.ml.reference import MINIMUM_SLICE_ROWS
    from mlops_assets.schema.problem import label_array

    solution = inputs.solution
    return evaluate(
        problem=solution.problem,
        metrics=solution.metrics,
        labels=label_array(table.column(solution.spine.label), solution.problem),
        predictions=predictions_array(table),
        training_labels=label_array(monitored_version.reference.rows.column(solution.spine.label), solution.problem),
        classes=monitored_version.contract.classes,
        threshold=decision_threshold(monitored_version.contract),
        slices=table.select(list(slice_columns)),
        minimum_slice_rows=MINIMUM_SLICE_ROWS,
        resampling=Resampling(seed=solution.training.seed, slice_metrics=solution.metrics),
    )


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
