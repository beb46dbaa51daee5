"""Bootstrap confidence intervals of metrics: the error that comes from evaluating a sample of rows.

The percentile interval of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: the rows are drawn with
replacement, as many as there are, again and again; the middle 95 % of the metric's values is the interval. Rows are drawn
independently of each other: rows that share a cause, such as one day's weather, make the true uncertainty larger than the interval.

Two models evaluated with the same number of rows, replicates and seed use the same resamples: the replicates of the one minus
those of the other are those of a paired difference (chapter 16).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import METRICS

CONFIDENCE = 0.95
MOST_REPLICATES, FEWEST_REPLICATES = 1000, 200
_DRAWS = 30_000_000
_BATCH_DRAWS = 100_000
_LEAST_DEFINED = 0.9


@dataclass(frozen=True)
class Interval:
    """The interval that holds the true value with a confidence of `CONFIDENCE`."""

    low: float
    high: float


Replicates = Mapping[str, np.ndarray]
"""Metric -> its value on each resample [replicates], NaN where the resample does not define it."""


def replicate_count(rows: int) -> int:
    """Return the number of resamples of `rows` rows: 1000, fewer (at least 200) over 30,000 rows, to bound the time."""
    return int(np.clip(_DRAWS // max(rows, 1), FEWEST_REPLICATES, MOST_REPLICATES))


def resample(rows: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Draw `replicates` resamples. Yields how often each row is in each, in batches [resamples, rows] as float64."""
    random = np.random.default_rng(seed)
    batch = max(1, _BATCH_DRAWS // rows)
    for start in range(0, replicates, batch):
        size = min(batch, replicates - start)
        drawn = random.integers(0, rows, size=(size, rows)) + np.arange(size)[:, None] * rows
        yield np.bincount(drawn.reshape(-1), minlength=size * rows).reshape(size, rows).astype(np.float64)


def bootstrap(evaluated: WeightedMetrics, *, names: Sequence[str], replicates: int, seed: int) -> Replicates:
    """The metrics `names` of the `evaluated` rows on every resample."""
    batches = [evaluated.of(weights, names) for weights in resample(len(evaluated.labels), replicates, seed)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in names}


def interval(name: str, estimate: float | None, values: np.ndarray) -> Interval | None:
    """The interval of the metric `name` around `estimate`, its value on all rows, from its replicates `values`.

    None when the metric is not defined on all rows, or on a tenth of the resamples.
    """
    percentiles = _percentiles(estimate, values)
    if percentiles is None or estimate is None:
        return None
    if METRICS.get(name).biased_upwards:
        # Its replicates lie above the estimate by the bias of that estimate.
        bias = float(np.nanmean(values)) - estimate
        return Interval(low=max(0.0, percentiles.low - bias), high=percentiles.high - bias)
    return percentiles


def _percentiles(estimate: float | None, values: np.ndarray) -> Interval | None:
    defined = values[~np.isnan(values)]
    if estimate is None or len(defined) < _LEAST_DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(low=float(low), high=float(high))


def difference_interval(name: str, estimate: float | None, ours: np.ndarray, theirs: np.ndarray) -> Interval | None:
    """The interval of the difference `estimate` between two models, ours minus theirs, from their replicates on the same resamples."""
    if estimate is None:
        return None
    values = ours - theirs
    if METRICS.get(name).biased_upwards:
        values = values - np.nanmean(values) + estimate
    # The difference of two distances may be negative: unlike the distance itself it needs no bound.
    return _percentiles(estimate, values)
