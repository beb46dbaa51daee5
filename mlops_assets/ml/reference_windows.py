"""The windows inside the period that a version was trained and evaluated on: by how much windows differ when nothing is wrong.

Rows of one week share their weather: the metrics of two weeks differ by more than the sampling errors of their rows. The variance between
windows is that of their values less their mean sampling variance (DerSimonian and Laird, "Meta-analysis in clinical trials", 1986).

The windows inside the training window are predicted by a model that was fitted on them, those of the hold-out are not. A fitted model is
better on its own rows: windows are compared with the level of their own kind, and that of the fitted ones is not looked at, only how it moves.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.ml.bootstrap import bootstrap
from mlops_assets.ml.reference import WHOLE
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import METRICS

FEWEST_WINDOWS = 5
"""With fewer windows nothing is known of how they differ."""

_REPLICATES = 100

METRIC_SCHEMA = pa.schema(
    [("window", pa.string()), ("slice", pa.string()), ("metric", pa.string()), ("value", pa.float64()), ("error", pa.float64())]
)
"""A metric of one window and slice, with its standard error."""


@dataclass(frozen=True)
class Variation:
    """The standard deviations `between` windows by slice and metric, of `windows` windows; those of the hold-out are `held_out` ones.

    Empty when there are too few windows: the differences between them are then taken as chance.
    """

    between: Mapping[tuple[str, str], float]
    windows: int
    held_out: float

    def predicted(self, name: str, metric: str) -> float:
        """The standard deviation of a window's metric about the hold-out's. A slice varies at least as all rows do."""
        between = max(self.between.get((part, metric), 0.0) for part in (WHOLE, name))
        return float(between * np.sqrt(1 + 1 / max(self.held_out, 1.0)))

    def quantile(self, probability: float) -> float:
        """The number of standard errors that a change exceeds with `probability`: of Student's distribution, as windows are few.

        Two levels are estimated, that of the fitted windows and that of the hold-out.
        """
        from scipy.stats import norm, t

        return float(t.isf(probability, self.windows - 2) if self.between else norm.isf(probability))


NO_VARIATION = Variation(between={}, windows=0, held_out=1.0)


def variation_between(metrics: pa.Table, held_out: float) -> Variation:
    """The variation of `metrics` (`METRIC_SCHEMA`, in order of time) between their windows, of which the last `held_out` are the hold-out.

    None where a metric has fewer than `FEWEST_WINDOWS`.
    """
    rows = metrics.to_pylist()
    newest = set(list(dict.fromkeys(row["window"] for row in rows))[-math.ceil(held_out) :])
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["slice"], row["metric"]), []).append(row)
    between = {key: _between(cell, newest) for key, cell in cells.items() if len(cell) >= FEWEST_WINDOWS}
    windows = max((len(cell) for (name, _), cell in cells.items() if name == WHOLE), default=0)
    return Variation(between, windows, held_out) if between else NO_VARIATION


def _between(cell: Sequence[Mapping[str, Any]], newest: Container[str]) -> float:
    """The standard deviation of the windows about the mean of their kind, fitted or held out, without their sampling errors."""
    values = np.array([row["value"] for row in cell])
    held_out = np.array([row["window"] in newest for row in cell])
    kinds = [values[kind] for kind in (held_out, ~held_out) if kind.any()]
    squares = sum(float(((kind - kind.mean()) ** 2).sum()) for kind in kinds)
    sampling = np.mean([row["error"] ** 2 for row in cell])
    return float(np.sqrt(max(0.0, squares / (len(values) - len(kinds)) - sampling)))


def window_metrics(
    window: str, slices: Mapping[str, WeightedMetrics], *, metrics: Sequence[str], seed: int
) -> list[dict[str, str | float]]:
    """The rows of `METRIC_SCHEMA` of one window, whose rows are given by slice. A metric that the rows do not define is left out."""
    rows: list[dict[str, str | float]] = []
    for name, evaluated in slices.items():
        values = evaluated.values(metrics)
        replicates = bootstrap(evaluated, names=metrics, replicates=_REPLICATES, seed=seed)
        for metric in metrics:
            value, defined = values[metric], replicates[metric][~np.isnan(replicates[metric])]
            if value is not None and len(defined) > _REPLICATES / 2:
                rows.append({"window": window, "slice": name, "metric": metric, "value": value, "error": float(np.std(defined))})
    return rows


def excess_of(evaluated: WeightedMetrics, metric: str, rows: int, seed: int) -> float:
    """By how much `metric` is expected to be greater on `rows` rows like the `evaluated` ones than on these; 0 of an unbiased metric.

    The square of such a distance grows by the variance of the sample, which is the inverse of its rows. A resample of the `evaluated`
    rows has their own variance too, which is left out.
    """
    total = len(evaluated.labels)
    value = evaluated.values((metric,))[metric]
    if not METRICS.get(metric).biased_upwards or not rows or value is None:
        return 0.0
    random = np.random.default_rng(seed)
    weights = np.stack([np.bincount(random.integers(0, total, rows), minlength=total) for _ in range(_REPLICATES)])
    resampled = float(np.nanmean(evaluated.of(weights.astype(np.float64), (metric,))[metric]))
    return float(np.sqrt(max(0.0, value**2 + (resampled**2 - value**2) * (1 - rows / total)))) - value
