"""The performance of a window, estimated and realised, and when it is an alert: one row per slice and metric.

Every metric is compared: ranking, calibration, loss and decisions may change apart from each other. A metric alerts when it is worse than on
the hold-out by an effect that matters (`schema.metric_names.least_effect`), and by more than chance and the usual differences between windows
explain. The value compared is the realised one once the window is complete, and the estimate until then.

The standard error of the change has three parts: the sampling errors of the window and of the hold-out, and the standard deviation between
windows of the reference period (`reference_windows.py`), which the mean of the few windows of a hold-out has too. The probability of a false
alarm is divided among the cells of a window (Bonferroni): one half among the metrics of all rows, the other among those of the slices.
What was realised on all rows is no guess: there a usual difference excuses as much as it is, one standard deviation between windows. An
estimate, and the hundreds of cells of the slices, must exceed what is unusual among the windows too.

Two further limits do not sink with a version that was accepted at a lower level (`ml/best_version.py`, the section `gates` of the YAML):
- The level of the best version on comparable rows: where an earlier version leads, the hold-out's value is that of this version, better by the
  lead.
- The floor of the gates. What a version must reach to be deployed, its predictions must reach too. It is a requirement: neither an effect that
  matters nor usual differences between windows excuse a value below it. Chance does, the sampling errors of the window and of the hold-out: a
  window at the level of its version is told below a floor once in a hundred.

A metric that every disturbance of the rows raises, as the expected calibration error, is greater on fewer rows: it is compared with its mean on
as many rows of the hold-out as the window has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from mlops_assets.ml.bootstrap import errors_of_chance
from mlops_assets.ml.evaluation import Evaluation
from mlops_assets.ml.performance_estimation import Estimate
from mlops_assets.ml.performance_words import evaluated_value
from mlops_assets.ml.reference import WHOLE, slice_name
from mlops_assets.ml.reference_windows import Variation
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.schema.metric_names import greater_is_better, least_effect
from mlops_assets.schema.table_columns import arrow_schema, row_columns

_QUANTILE = 1.959964
"""Half the width of a 95 % interval in standard errors."""

_BOUNDS = 3
"""Half the width of the bounds of an estimate in standard errors."""

_FLOOR_FALSE_ALARMS = 0.01
"""The probability that a window at the level of the hold-out is told below any floor, divided among the floors."""


@dataclass(frozen=True)
class Maturity:
    """Predictions of a slice of a window, and how many of their labels are known; `complete` when all that will come have come."""

    rows: int
    matured_rows: int
    complete: bool


@dataclass(frozen=True)
class Limits:
    """When a metric alerts: `tolerance` and `tolerances` are as in the YAML, `false_alarms` is the probability of any in a quiet window.

    `floors` and `slice_floors` are the values that the gates ask for, of all rows and of every slice.
    """

    tolerance: float
    tolerances: Mapping[str, float]
    false_alarms: float
    floors: Mapping[str, float]
    slice_floors: Mapping[str, float]

    def effect(self, metric: str, expected: float) -> float:
        """The least change from `expected` that matters."""
        stated = self.tolerances.get(metric)
        return least_effect(metric, expected, self.tolerance) if stated is None else stated

    def floor_quantile(self) -> float:
        """The number of sampling errors that a quiet window exceeds with the probability of a false alarm of one floor."""
        from scipy.stats import norm

        return float(norm.isf(_FLOOR_FALSE_ALARMS / max(1, len(self.floors) + len(self.slice_floors))))


@dataclass(frozen=True)
class UsualPerformance:
    """The hold-out of a version: its metrics, by how much windows differ, and `excess`, which is added to the metric for a smaller sample.

    `excess` is by slice, metric and rows; one that is not there is zero. `leads` are by metric, on all rows: how much better the best version
    is.
    """

    evaluation: Evaluation
    variation: Variation
    excess: Mapping[tuple[str, str, int], float]
    leads: Mapping[str, float]


def performance_rows(
    window: str,
    *,
    metrics: Sequence[str],
    maturity: Mapping[str, Maturity],
    estimates: Mapping[tuple[str, str], Estimate],
    realised: Evaluation | None,
    usual: UsualPerformance,
    limits: Limits,
) -> list[PerformanceRow]:
    """The rows of one window. `maturity` names its slices; `estimates` are by slice and metric; `realised` is None without any known label."""
    reference, known = results_by_slice(usual.evaluation), results_by_slice(realised) if realised else {}
    rows: list[PerformanceRow] = []
    errors: dict[tuple[str, str], float] = {}
    for name, mature in maturity.items():
        for metric in metrics:
            estimated = estimates.get((name, metric))
            value, interval = known.get(name, ({}, {}))[0].get(metric), known.get(name, ({}, {}))[1].get(metric)
            held_out, bounds = reference.get(name, ({}, {}))[0].get(metric), reference.get(name, ({}, {}))[1].get(metric)
            row = PerformanceRow(
                window=window,
                slice=None if name == WHOLE else name,
                metric=metric,
                estimated=estimated.value if estimated else None,
                estimated_lower=estimated.lower if estimated else None,
                estimated_upper=estimated.upper if estimated else None,
                realised=value,
                realised_lower=interval[0] if interval else None,
                realised_upper=interval[1] if interval else None,
                reference=held_out,
                expected=None,
                effect=None,
                error=None,
                threshold=None,
                rows=mature.rows,
                matured_rows=mature.matured_rows,
                matured_share=mature.matured_rows / mature.rows,
                complete=mature.complete,
                alert=False,
                best=None,
                floor=None,
            )
            if held_out is not None and bounds is not None:
                excess = usual.excess.get((name, metric, mature.matured_rows), 0.0)
                best = _best(metric, held_out + excess, usual.leads.get(metric, 0.0)) if name == WHOLE else None
                effect = limits.effect(metric, held_out + excess if best is None else best)
                row = replace(row, expected=held_out + excess, best=best, effect=effect)
                if (sampling := _sampling_error(row, bounds)) is not None:
                    stated = (limits.floors if name == WHOLE else limits.slice_floors).get(metric)
                    floor = None if stated is None else stated + excess
                    error = math.hypot(sampling, usual.variation.predicted(name, metric))
                    row, errors[name, metric] = replace(row, floor=floor, error=error), sampling
            rows.append(row)
    return [_with_threshold(row, rows, errors, usual.variation, limits) for row in rows]


def results_by_slice(evaluation: Evaluation) -> dict[str, tuple[Mapping[str, float | None], dict[str, tuple[float, float]]]]:
    """Metrics and intervals of an evaluation by the name of the slice, all rows included."""
    parts = [(WHOLE, evaluation.metrics, evaluation.intervals)]
    parts += [(slice_name(result.column, result.value), result.metrics, result.intervals) for result in evaluation.slices]
    return {
        name: (metrics, {metric: (interval.low, interval.high) for metric, interval in intervals.items() if interval is not None})
        for name, metrics, intervals in parts
    }


def estimation_error(row: PerformanceRow) -> float | None:
    """By how much the estimate of a complete window missed what happened, beyond its own bounds and an effect that matters; else None."""
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
    return None if inside or abs(error) <= (row.effect or 0.0) else error


def to_arrow(rows: Sequence[PerformanceRow]) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=arrow_schema(row_columns(PerformanceRow)))


def _best(metric: str, expected: float, lead: float) -> float | None:
    """The level of the best version on the rows of the hold-out; None where no version leads."""
    if not lead:
        return None
    return expected + lead if greater_is_better(metric) else expected - lead


def _sampling_error(row: PerformanceRow, reference: tuple[float, float]) -> float | None:
    """The standard error of the difference between the window's value and the hold-out's by their rows; None without an interval.

    Of an interval the side that faces the other value counts: intervals of small samples are not symmetric.
    """
    value, kind = evaluated_value(vars(row))
    if kind == "realised":
        interval, width = (row.realised_lower, row.realised_upper), _QUANTILE
    else:
        interval, width = (row.estimated_lower, row.estimated_upper), _BOUNDS
    if value is None or row.reference is None or interval[0] is None or interval[1] is None:
        return None
    better = greater_is_better(row.metric)
    own = (interval[1] - value if better else value - interval[0]) / width
    held_out = (row.reference - reference[0] if better else reference[1] - row.reference) / _QUANTILE
    return math.hypot(max(own, 0.0), max(held_out, 0.0))


def _with_threshold(
    row: PerformanceRow,
    rows: Sequence[PerformanceRow],
    errors: Mapping[tuple[str, str], float],
    variation: Variation,
    limits: Limits,
) -> PerformanceRow:
    """The row with what its value must not be worse than: the closer of the limits by its level and by the floor."""
    if row.expected is None or row.effect is None or row.error is None:
        return row
    family = [other for other in rows if other.error is not None and (other.slice is None) == (row.slice is None)]
    probability, sampling = limits.false_alarms / 2 / len(family), errors[row.slice or WHOLE, row.metric]
    value, kind = evaluated_value(vars(row))
    if kind == "realised" and row.slice is None:
        explained = math.hypot(errors_of_chance(probability) * sampling, variation.predicted(WHOLE, row.metric))
    else:
        explained = variation.quantile(probability) * row.error
    change = max(row.effect, explained)
    # Of a metric whose greater values are worse everything is turned round.
    sign = 1 if greater_is_better(row.metric) else -1
    level = row.expected if row.best is None else row.best
    threshold = sign * level - change
    if row.floor is not None:
        chance = limits.floor_quantile() * sampling
        threshold = max(threshold, min(sign * row.floor, sign * row.expected - chance))
    return replace(row, threshold=sign * threshold, alert=value is not None and sign * value < threshold)
