"""Evaluation of a model on labelled rows: metrics with intervals beside a naive baseline, by slice, and the calibration curve.

Pure functions on arrays; the split chooses the rows, and the gates decide whether the result is good enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.ml.bootstrap import Interval, Replicates, bootstrap, interval, number_blocks, replicate_count
from mlops_assets.ml.calibration_curve import CALIBRATION_BINS, CalibrationPoint, calibration_curve
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import METRICS
from mlops_assets.schema.problem import Problem


@dataclass(frozen=True)
class Resampling:
    """That intervals are wanted: the seed of the resamples, and the metrics of which slices get an interval too.

    `blocks` number the rows that are drawn together (`bootstrap.number_blocks`); None: each row is drawn by itself.
    """

    seed: int
    slice_metrics: tuple[str, ...]
    blocks: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SliceResult:
    """The metrics of the rows where `column` has `value`, with the intervals that were asked for."""

    column: str
    value: str
    rows: int
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval | None]


@dataclass(frozen=True)
class Evaluation:
    """A model evaluated on `rows` rows.

    `blocks` is how many blocks of rows were drawn for the intervals, None where rows were drawn one by one.
    `label_rate` is the share of positives (binary) or None. `baseline` holds the same metrics for a constant prediction:
    of `constant_predictions`. `intervals` (and the `replicates` they are from) are empty when none were asked
    for. `dropped_slices` counts, per slice column, the values with too few rows. `calibration` is empty unless the problem is
    binary.
    """

    problem: Problem
    rows: int
    blocks: int | None
    threshold: float | None
    label_rate: float | None
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval | None]
    baseline: Mapping[str, float | None]
    slices: tuple[SliceResult, ...]
    dropped_slices: Mapping[str, int]
    calibration: tuple[CalibrationPoint, ...]
    replicates: Replicates = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as plain lists and dictionaries, for JSON; without the replicates."""
        content = asdict(replace(self, replicates={}))
        del content["replicates"]
        return content


def evaluate(
    *,
    problem: Problem,
    metrics: Sequence[str],
    labels: np.ndarray,
    predictions: np.ndarray,
    training_labels: np.ndarray,
    classes: tuple[int | str, ...],
    threshold: float,
    slices: pa.Table,
    minimum_slice_rows: int,
    resampling: Resampling | None,
) -> Evaluation:
    """Evaluate `predictions` of `labels` by `metrics`.

    `predictions` are probabilities [rows, classes] of a classifier (as `pipeline.predict` gives them) or values [rows];
    `training_labels` give the baseline; `slices` has one column per slice and the same rows (no columns: no slices).
    `threshold` matters to binary problems alone. Without `resampling` there are no intervals. Raises ValueError on different
    lengths, no rows, or a prediction that is not a finite number.
    """
    predictions = normalize_predictions(problem, predictions)
    if len(labels) == 0:
        raise ValueError("There are no rows to evaluate: widen the hold-out.")
    if len(predictions) != len(labels) or (slices.num_columns and slices.num_rows != len(labels)):
        raise ValueError(
            f"{len(labels)} labels, {len(predictions)} predictions and {slices.num_rows} slice rows must be equally many."
        )
    if not np.isfinite(predictions).all():
        raise ValueError(f"{int((~np.isfinite(predictions)).sum())} predictions are not finite numbers.")
    binary = problem == "binary_classification"
    evaluated = WeightedMetrics(problem, labels, predictions, classes, threshold)
    values = evaluated.values(metrics)
    replicates: Replicates = {}
    if resampling is not None:
        count = replicate_count(len(labels))
        replicates = bootstrap(evaluated, names=metrics, replicates=count, seed=resampling.seed, blocks=resampling.blocks)
    results, dropped = _by_slice(evaluated, metrics, slices=slices, minimum_rows=minimum_slice_rows, resampling=resampling)
    return Evaluation(
        problem=problem,
        rows=len(labels),
        blocks=None if resampling is None or resampling.blocks is None else int(resampling.blocks.max()) + 1,
        threshold=threshold if binary else None,
        label_rate=float(np.mean(labels)) if binary else None,
        metrics=values,
        intervals={name: interval(name, values[name], drawn, resampling.blocks) for name, drawn in replicates.items()}
        if resampling is not None
        else {},
        baseline=_baseline(evaluated, metrics, training_labels),
        slices=results,
        dropped_slices=dropped,
        calibration=calibration_curve(labels, predictions, CALIBRATION_BINS) if binary else (),
        replicates=replicates,
    )


def normalize_predictions(problem: Problem, predictions: np.ndarray) -> np.ndarray:
    """`predictions` in float64, those of a binary classifier with two columns as the probability of the second class [rows]."""
    predictions = np.asarray(predictions, dtype=np.float64)
    return predictions[:, 1] if problem == "binary_classification" and predictions.ndim == 2 else predictions


def constant_predictions(
    problem: Problem, metric: str, training_labels: np.ndarray, classes: Sequence[int | str], rows: int
) -> np.ndarray:
    """The naive baseline: for every one of `rows` rows the share of each class, or the constant that suits `metric` best.

    Which constant that is, the metric declares: the mean of the training labels, or their median.
    """
    if problem != "multiclass_classification":
        constant = np.median(training_labels) if METRICS.get(metric).constant == "median" else np.mean(training_labels)
        return np.full(rows, float(constant))
    shares = [float(np.mean(training_labels == value)) for value in classes]
    return np.tile(shares, (rows, 1))


def _baseline(evaluated: WeightedMetrics, metrics: Sequence[str], training_labels: np.ndarray) -> dict[str, float | None]:
    baseline: dict[str, float | None] = {}
    for name in metrics:
        constant = constant_predictions(evaluated.problem, name, training_labels, evaluated.classes, len(evaluated.labels))
        baseline |= replace(evaluated, predictions=constant).values((name,))
    return baseline


def rows_by_value(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """The positions of the rows of each value of `column`, as text, the most frequent first; `(missing)` is that of null."""
    encoded = column.cast(pa.string()).fill_null("(missing)").combine_chunks().dictionary_encode()
    values, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, minlength=len(values))
    positions = dict(zip(values, np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1]), strict=True))
    return dict(sorted(positions.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def _by_slice(
    evaluated: WeightedMetrics, names: Sequence[str], *, slices: pa.Table, minimum_rows: int, resampling: Resampling | None
) -> tuple[tuple[SliceResult, ...], dict[str, int]]:
    results: list[SliceResult] = []
    dropped: dict[str, int] = {}
    for name in slices.column_names:
        parts = rows_by_value(slices.column(name))
        kept = {value: rows for value, rows in parts.items() if len(rows) >= minimum_rows}
        dropped[name] = len(parts) - len(kept)
        for value, rows in kept.items():
            part = evaluated.part(rows)
            metrics = part.values(names)
            intervals = {} if resampling is None else _slice_intervals(part, metrics, resampling, rows)
            results.append(SliceResult(column=name, value=value, rows=len(rows), metrics=metrics, intervals=intervals))
    return tuple(results), dropped


def _slice_intervals(
    part: WeightedMetrics, metrics: Mapping[str, float | None], resampling: Resampling, rows: np.ndarray
) -> dict[str, Interval | None]:
    blocks = None if resampling.blocks is None else number_blocks(resampling.blocks[rows])
    count = replicate_count(len(part.labels))
    replicates = bootstrap(part, names=resampling.slice_metrics, replicates=count, seed=resampling.seed, blocks=blocks)
    return {name: interval(name, metrics[name], values, blocks) for name, values in replicates.items()}
