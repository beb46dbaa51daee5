"""The performance of the predictions of one version, estimated and realised, beside its limits: the rows of `performance_report`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from mlops_assets.core.prediction_columns import prediction_columns, predictions_array
from mlops_assets.engine.engine import Engine, ProcessEngine
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.monitoring.monitored_windows import MonitoredVersion, Windows
from mlops_assets.schema.duration import add_duration
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.candidate_evaluation import decision_threshold
from mlops_assets.training.reference_period import evaluated_rows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.ml.performance import Limits, UsualPerformance
    from mlops_assets.ml.performance_estimation import Estimate
    from mlops_assets.serving.contract import Contract

_PARTS_A_PROCESSOR = 2
"""Windows that wait or are evaluated for each processor: one that is done finds the next."""


def version_performance(
    inputs: SolutionInputs,
    monitored_version: MonitoredVersion,
    tables: "Mapping[str, pa.Table]",
    *,
    windows: Windows,
    as_of: datetime,
    engine: Engine,
) -> "list[PerformanceRow]":
    """Return the rows of all windows that a version predicted (`tables`).

    NannyML is fitted once for all of them. What happened is a part for `engine` per window; a single one stays in this process.
    """
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
    known = [_known(inputs, table) for table in tables.values()]
    evaluate = _evaluation(inputs, monitored_version, solution.gates.slices)
    chosen = engine if len(known) > 1 else ProcessEngine()
    results = chosen.map(evaluate, known, in_flight=_PARTS_A_PROCESSOR * chosen.processors)
    rows: list[PerformanceRow] = []
    for window, realised in zip(tables, results, strict=True):
        complete = is_complete(inputs, windows.end(window), as_of)
        rows += performance_rows(
            window,
            metrics=solution.metrics,
            maturity={name: Maturity(part.num_rows, matured[window][name], complete) for name, part in slices[window].items()},
            estimates={(name, metric): value for ((chunk, name), metric), value in estimates.items() if chunk == window},
            realised=realised,
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
        realised=_evaluation(inputs, monitored_version, ())(labelled) if labelled else None,
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

    performance_section, gates = inputs.solution.monitoring.performance, inputs.solution.gates
    return Limits(
        performance_section.tolerance,
        performance_section.tolerances,
        performance_section.false_alarms,
        floors=gates.all_floors,
        slice_floors=gates.worst_slice,
    )


def _usual(
    inputs: SolutionInputs,
    monitored_version: MonitoredVersion,
    matured: "Iterable[Mapping[str, int]]",
    slice_columns: Sequence[str],
) -> "UsualPerformance":
    """The performance on the hold-out and beside the best version, and its excess on fewer rows: for all numbers of `matured` rows by slice."""
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
        evaluation = _evaluation(inputs, monitored_version, columns)(reference.rows)
        assert evaluation is not None, "the hold-out of a version has rows"
        evaluations[columns] = evaluation
    sizes = {(name, count) for counts in matured for name, count in counts.items() if name in evaluated}
    return UsualPerformance(
        evaluation=evaluations[columns],
        variation=reference.variation,
        excess={
            (name, metric, count): excess_of(evaluated[name], metric, count, solution.training.seed)
            for name, count in sizes
            for metric in biased
        },
        leads={metric: lead.certain for metric, lead in reference.leads.items()},
    )


def _known(inputs: SolutionInputs, table: "pa.Table") -> "pa.Table":
    """The rows whose label is known, with the columns that their evaluation reads."""
    import pyarrow.compute as pc

    label = inputs.solution.spine.label
    read = {label, *inputs.solution.gates.slices, *prediction_columns(table)}
    return table.select([name for name in table.column_names if name in read]).filter(pc.is_valid(table.column(label)))


def _evaluation(
    inputs: SolutionInputs, monitored_version: MonitoredVersion, slice_columns: Sequence[str]
) -> "RealisedEvaluation":
    from mlops_assets.schema.problem import label_array

    solution = inputs.solution
    return RealisedEvaluation(
        solution,
        monitored_version.contract,
        label_array(monitored_version.reference.rows.column(solution.spine.label), solution.problem),
        tuple(slice_columns),
    )


@dataclass(frozen=True)
class RealisedEvaluation:
    """The evaluation of rows with their labels, in this process or another."""

    solution: Solution
    contract: "Contract"
    training_labels: "np.ndarray"
    slice_columns: tuple[str, ...]

    def __call__(self, table: "pa.Table") -> "Evaluation | None":
        """The metrics of `table`; None without a row."""
        from mlops_assets.ml.evaluation import Resampling, evaluate
        from mlops_assets.ml.reference import MINIMUM_SLICE_ROWS
        from mlops_assets.schema.problem import label_array

        if not table.num_rows:
            return None
        solution = self.solution
        return evaluate(
            problem=solution.problem,
            metrics=solution.metrics,
            labels=label_array(table.column(solution.spine.label), solution.problem),
            predictions=predictions_array(table),
            training_labels=self.training_labels,
            classes=self.contract.classes,
            threshold=decision_threshold(self.contract),
            slices=table.select(list(self.slice_columns)),
            minimum_slice_rows=MINIMUM_SLICE_ROWS,
            resampling=Resampling(seed=solution.training.seed, slice_metrics=solution.metrics),
        )
