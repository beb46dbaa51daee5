"""Bootstrap confidence intervals of metrics: the error that comes from evaluating a sample of rows.

The percentile interval of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: the rows are drawn with
replacement, as many as there are, again and again; the middle 95 % of the metric's values is the interval.

Rows of one day share a cause, such as its weather: drawn independently of each other they make the interval too narrow. So whole
blocks of rows are drawn, those of a day together (the cluster bootstrap of Davison and Hinkley, "Bootstrap Methods and their
Application", 1997, section 3.8). Of few blocks the percentile interval is too narrow again; it is expanded as Hesterberg, "What
Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, section 5.2, gives it.

Two models evaluated with the same rows, blocks, replicates and seed use the same resamples: the replicates of the one minus
those of the other are those of a paired difference (chapter 16).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.weighted_metrics import WeightedMetrics, compute
from mlops_assets.schema.metric_names import METRICS

CONFIDENCE = 0.95
MOST_REPLICATES, FEWEST_REPLICATES = 1000, 200
FEWEST_BLOCKS = 5
"""With fewer blocks, one that is worse in all of them may still be so by chance: rows are drawn then."""
_DRAWS = 30_000_000
_BATCH_DRAWS, _BLOCK_BATCH_DRAWS = 100_000, 2_000_000
"""Weights of rows that a batch of resamples has, to bound memory; of blocks more, since most metrics never weigh the rows of one."""
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


def number_blocks(values: np.ndarray) -> np.ndarray | None:
    """Number the blocks of rows with equal `values`, such as their day, from 0 [rows]; None where there are too few to be drawn."""
    blocks, numbers = np.unique(values, return_inverse=True)
    return numbers if len(blocks) >= FEWEST_BLOCKS else None


def resample(rows: int, replicates: int, seed: int, blocks: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Draw `replicates` resamples, row by row or by the numbered `blocks` [rows].

    Yields how often each row, or each block, is in each, in batches [resamples, rows or blocks] as float64.
    """
    random = np.random.default_rng(seed)
    units = rows if blocks is None else int(blocks.max()) + 1
    batch = max(1, (_BATCH_DRAWS if blocks is None else _BLOCK_BATCH_DRAWS) // rows)
    for start in range(0, replicates, batch):
        size = min(batch, replicates - start)
        drawn = random.integers(0, units, size=(size, units)) + np.arange(size)[:, None] * units
        yield np.bincount(drawn.reshape(-1), minlength=size * units).reshape(size, units).astype(np.float64)


def bootstrap(
    evaluated: WeightedMetrics, *, names: Sequence[str], replicates: int, seed: int, blocks: np.ndarray | None = None
) -> Replicates:
    """The metrics `names` of the `evaluated` rows on every resample, of rows or of the numbered `blocks` [rows]."""
    metrics = evaluated.weighted(names, blocks)
    batches = [compute(metrics, weights) for weights in resample(len(evaluated.labels), replicates, seed, blocks)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in names}


def interval(name: str, estimate: float | None, values: np.ndarray, blocks: np.ndarray | None = None) -> Interval | None:
    """The interval of the metric `name` around `estimate`, its value on all rows, from its replicates `values`, drawn by `blocks`.

    None when the metric is not defined on all rows, or on a tenth of the resamples.
    """
    percentiles = _percentiles(estimate, values, blocks)
    if percentiles is None or estimate is None:
        return None
    if METRICS.get(name).biased_upwards:
        # Its replicates lie above the estimate by the bias of that estimate.
        bias = float(np.nanmean(values)) - estimate
        return Interval(low=max(0.0, percentiles.low - bias), high=percentiles.high - bias)
    return percentiles


def _percentiles(estimate: float | None, values: np.ndarray, blocks: np.ndarray | None) -> Interval | None:
    defined = values[~np.isnan(values)]
    if estimate is None or len(defined) < _LEAST_DEFINED * len(values):
        return None
    tail = _tail(blocks)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def _tail(blocks: np.ndarray | None) -> float:
    """The share of the replicates below the interval: of few blocks a smaller one, as Student's distribution has wider tails."""
    nominal = (1 - CONFIDENCE) / 2
    if blocks is None:
        return nominal
    from scipy.stats import norm, t

    count = int(blocks.max()) + 1
    return float(norm.cdf(np.sqrt(count / (count - 1)) * t.ppf(nominal, count - 1)))


def difference_interval(
    name: str, estimate: float | None, ours: np.ndarray, theirs: np.ndarray, blocks: np.ndarray | None = None
) -> Interval | None:
    """The interval of the difference `estimate` between two models, ours minus theirs, from their replicates on the same resamples."""
    if estimate is None:
        return None
    values = ours - theirs
    if METRICS.get(name).biased_upwards:
        values = values - np.nanmean(values) + estimate
    # The difference of two distances may be negative: unlike the distance itself it needs no bound.
    return _percentiles(estimate, values, blocks)


def ratio_interval(
    estimate: float | None, ours: np.ndarray, theirs: np.ndarray, blocks: np.ndarray | None = None
) -> Interval | None:
    """The interval of the ratio `estimate` of two values, ours over theirs, from their replicates on the same resamples."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = ours / theirs
    return _percentiles(estimate, np.where(np.isfinite(ratios), ratios, np.nan), blocks)


def standard_error(values: np.ndarray, blocks: np.ndarray | None = None) -> float | None:
    """The standard error of the value whose replicates are `values`, drawn by `blocks`; None where the tenth of them is not defined."""
    defined = values[~np.isnan(values)]
    if len(defined) < max(_LEAST_DEFINED * len(values), 2):
        return None
    count = np.inf if blocks is None else int(blocks.max()) + 1
    # The variance of the bootstrap is that of a sample, which of few blocks is too small.
    return float(np.std(defined)) * (1.0 if blocks is None else float(np.sqrt(count / (count - 1))))


def errors_of_chance(probability: float, blocks: np.ndarray | None = None) -> float:
    """The number of standard errors that a value exceeds by chance with `probability`: of Student's distribution, as blocks are few."""
    from scipy.stats import norm, t

    return float(norm.isf(probability) if blocks is None else t.isf(probability, int(blocks.max())))
