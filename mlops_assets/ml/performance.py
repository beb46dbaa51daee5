"""The performance of a window, estimated and realised, and when it is an alert: one row per slice and metric.

A metric alerts when it is worse than the reference's by more than the tolerance, and its whole interval is on the worse side of the reference's
value: a loss that chance explains, or that is too small to matter, does not. The value compared is the realised one once the window is complete,
and the estimate until then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from mlops_assets.ml.evaluation import Evaluation
from mlops_assets.ml.performance_estimation import Estimate
from mlops_assets.ml.reference import WHOLE, slice_name
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.schema.metric_names import greater_is_better
from mlops_assets.schema.table_columns import arrow_schema, row_columns


@dataclass(frozen=True)
class Maturity:
    """Predictions of a slice of a window, and how many of their labels are known; `complete` when all that will come have come."""

    rows: int
    matured_rows: int
    complete: bool


def performance_rows(
    window: str,
    *,
    metrics: Sequence[str],
    maturity: Mapping[str, Maturity],
    estimates: Mapping[tuple[str, str], Estimate],
    realised: Evaluation | None,
    reference: Evaluation,
    tolerance: float,
) -> list[PerformanceRow]:
    """The rows of one window. `maturity` names its slices; `estimates` are by slice and metric; `realised` is None without any known label."""
    usual, known = results_by_slice(reference), results_by_slice(realised) if realised else {}
    rows = []
    for name, mature in maturity.items():
        for metric in metrics:
            estimated = estimates.get((name, metric))
            value, interval = known.get(name, ({}, {}))[0].get(metric), known.get(name, ({}, {}))[1].get(metric)
            expected = usual[name][0].get(metric) if name in usual else None
            threshold = (
                None if expected is None else expected + (-1 if greater_is_better(metric) else 1) * tolerance * abs(expected)
            )
            evaluated = (
                (value, interval)
                if mature.complete and value is not None
                else (estimated.value, (estimated.lower, estimated.upper))
                if estimated
                else None
            )
            rows.append(
                PerformanceRow(
                    window=window,
                    slice=None if name == WHOLE else name,
                    metric=metric,
                    estimated=estimated.value if estimated else None,
                    estimated_lower=estimated.lower if estimated else None,
                    estimated_upper=estimated.upper if estimated else None,
                    realised=value,
                    realised_lower=interval[0] if interval else None,
                    realised_upper=interval[1] if interval else None,
                    reference=expected,
                    threshold=threshold,
                    rows=mature.rows,
                    matured_rows=mature.matured_rows,
                    matured_share=mature.matured_rows / mature.rows,
                    complete=mature.complete,
                    alert=evaluated is not None
                    and expected is not None
                    and threshold is not None
                    and _worse(metric, evaluated, expected, threshold),
                )
            )
    return rows


def results_by_slice(evaluation: Evaluation) -> dict[str, tuple[Mapping[str, float | None], dict[str, tuple[float, float]]]]:
    """Metrics and intervals of an evaluation by the name of the slice, all rows included."""
    parts = [(WHOLE, evaluation.metrics, evaluation.intervals)]
    parts += [(slice_name(result.column, result.value), result.metrics, result.intervals) for result in evaluation.slices]
    return {
        name: (metrics, {metric: (interval.low, interval.high) for metric, interval in intervals.items() if interval is not None})
        for name, metrics, intervals in parts
    }


def estimation_error(row: PerformanceRow, tolerance: float) -> float | None:
    """By how much the estimate of a complete window missed what happened, beyond its own bounds and the tolerance; None when it did not."""
    if (
        not row.complete
        or row.estimated is None
        or row.realised is None
        or row.estimated_lower is None
        or row.estimated_upper is None
    ):
        return None
    error = row.realised - row.estimated
    inside = row.estimated_lower <= row.realised <= row.estimated_upper
    return None if inside or abs(error) <= tolerance * abs(row.estimated) else error


def to_arrow(rows: Sequence[PerformanceRow]) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=arrow_schema(row_columns(PerformanceRow)))


def _worse(metric: str, evaluated: tuple[float, tuple[float, float] | None], expected: float, threshold: float) -> bool:
    value, interval = evaluated
    lower, upper = interval or (value, value)
    return value < threshold and upper < expected if greater_is_better(metric) else value > threshold and lower > expected
