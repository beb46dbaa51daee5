"""Evaluated rows, and their metrics for many weightings at once, as the bootstrap needs them.

A row of weight 2 counts twice: weights that count how often a resample drew each row give the metrics of that resample, without
building it. Everything that does not depend on the weights (the order of the scores, the loss of each row) is computed once. Where
whole blocks of rows are drawn, all rows of a block have one weight: a sum over the rows is then one over the blocks, which are few.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from mlops_assets.ml.ranking import Ranking
from mlops_assets.schema.metric_names import METRICS
from mlops_assets.schema.problem import Problem

Weighted = Callable[[np.ndarray], np.ndarray]
"""A metric of some rows as a function of their weights [weightings, rows]; NaN where it is not defined."""

_MOST_COUNTS = 20_000_000
"""Blocks times groups of a ranking whose rows are counted, to bound memory: beyond them each row gets the weight of its block."""


@runtime_checkable
class BlockMetric(Protocol):
    """A metric that is cheaper to compute from the weights of blocks than from those of their rows."""

    def by_block(self, blocks: np.ndarray) -> Weighted:
        """The metric as a function of the weights [weightings, blocks] of the numbered `blocks` [rows]."""


@dataclass(frozen=True)
class SumMetric:
    """A metric of weighted sums: `combine` makes values [weightings] of the sums [weightings, columns] of `columns` [rows, columns]."""

    columns: np.ndarray
    combine: Callable[[np.ndarray], np.ndarray]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The metric for each row of `weights` [weightings, rows]."""
        return self.combine(weights @ self.columns)

    def by_block(self, blocks: np.ndarray) -> Weighted:
        """The metric of the sums over each block."""
        return replace(self, columns=np.column_stack([np.bincount(blocks, weights=column) for column in self.columns.T]))


@dataclass(frozen=True)
class RankingMetric:
    """The mean of a metric over the `rankings` that define it, one for each class: `roc_auc` or `average_precision`."""

    rankings: Sequence[Ranking]
    name: Literal["roc_auc", "average_precision"]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The metric for each row of `weights` [weightings, rows]."""
        return self._mean([ranking.metrics(weights)[self.name] for ranking in self.rankings])

    def by_block(self, blocks: np.ndarray) -> Weighted:
        """The metric of the rows of each block as they are counted along the rankings."""
        if (int(blocks.max()) + 1) * max(len(ranking.ends) for ranking in self.rankings) > _MOST_COUNTS:
            return _of_rows(self, blocks)
        counted = [getattr(ranking.count(blocks), self.name) for ranking in self.rankings]
        return lambda weights: self._mean([metric(weights) for metric in counted])

    def _mean(self, values: Sequence[np.ndarray]) -> np.ndarray:
        by_ranking = np.stack(values)
        defined = ~np.isnan(by_ranking)
        return np.where(defined, by_ranking, 0.0).sum(axis=0) / defined.sum(axis=0)


def _of_rows(metric: Weighted, blocks: np.ndarray) -> Weighted:
    return lambda weights: metric(np.take(weights, blocks, axis=1))


@dataclass(frozen=True)
class WeightedMetrics:
    """The evaluated rows, and their metrics.

    `labels` [rows] come from `problem.label_array`; `predictions` are the probabilities of the second class [rows] (binary), probabilities
    [rows, classes] in the order of `classes`, or values [rows]. `threshold` is the binary decision threshold.
    """

    problem: Problem
    labels: np.ndarray
    predictions: np.ndarray
    classes: Sequence[int | str]
    threshold: float

    def part(self, rows: np.ndarray) -> "WeightedMetrics":
        """The `rows` of these at the given positions."""
        return replace(self, labels=self.labels[rows], predictions=self.predictions[rows])

    def weighted(self, names: Iterable[str], blocks: np.ndarray | None = None) -> dict[str, Weighted]:
        """The metrics `names` as functions of the weights of the rows, or of the numbered `blocks` [rows]: [weightings, blocks]."""
        metrics = {}
        for name in names:
            if name not in self._prepared:
                self._prepared[name] = METRICS.get(name)(self)
            metric = metrics[name] = self._prepared[name]
            if blocks is not None:
                metrics[name] = metric.by_block(blocks) if isinstance(metric, BlockMetric) else _of_rows(metric, blocks)
        return metrics

    def of(self, weights: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The metrics `names` for each row of `weights` [weightings, rows]: arrays [weightings], NaN where not defined."""
        return compute(self.weighted(names), weights)

    def values(self, names: Iterable[str]) -> dict[str, float | None]:
        """The metrics `names` of the rows as they are. One that they do not define (a ranking with one class present) is None."""
        once = np.ones((1, len(self.labels)))
        return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in self.of(once, names).items()}

    def mean(self, values: np.ndarray) -> Weighted:
        """The metric that is the weighted mean of `values` [rows]."""
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> Weighted:
        """The metric that is the weighted sum of one column over that of another; not defined where the latter is 0."""
        return self.of_sums(np.column_stack([numerator, denominator]), lambda sums: sums[:, 0] / sums[:, 1])

    def of_sums(self, columns: np.ndarray, combine: Callable[[np.ndarray], np.ndarray]) -> Weighted:
        """The metric that `combine` makes [weightings] of the weighted sums [weightings, columns] of `columns` [rows, columns]."""
        return SumMetric(np.asarray(columns, dtype=np.float64), combine)

    def of_ranking(self, name: Literal["roc_auc", "average_precision"]) -> Weighted:
        """The metric `name` of the rankings by the scores of each class: the mean over the classes that define it."""
        return RankingMetric(self.rankings, name)

    @cached_property
    def decisions(self) -> np.ndarray:
        """The decision for each row [rows]: 1 from the threshold on (binary), or the position of the likeliest class."""
        if self.problem == "binary_classification":
            return (self.predictions >= self.threshold).astype(np.int64)
        return self.predictions.argmax(axis=1)

    @cached_property
    def is_right(self) -> np.ndarray:
        """1 where the decision is the label [rows]."""
        return self.truth[np.arange(len(self.labels)), self.decisions]

    @cached_property
    def truth(self) -> np.ndarray:
        """1 where the row is of the class [rows, classes]. Raises ValueError for a label that is none of the classes."""
        classes = (0, 1) if self.problem == "binary_classification" else self.classes
        members = np.stack([self.labels == value for value in classes], axis=1).astype(np.float64)
        if not members.any(axis=1).all():
            unknown = sorted({str(label) for label in self.labels.tolist() if label not in classes})
            raise ValueError(f"The model knows no class {', '.join(unknown[:5])}: train it on data that holds every class.")
        return members

    @cached_property
    def rankings(self) -> list[Ranking]:
        """The rows by their score for each class; of two classes for the second alone."""
        if self.problem == "binary_classification":
            return [Ranking.of(self.labels, self.predictions)]
        return [Ranking.of(self.truth[:, code], self.predictions[:, code]) for code in range(len(self.classes))]

    @cached_property
    def _prepared(self) -> dict[str, Weighted]:
        return {}


def compute(metrics: Mapping[str, Weighted], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The `metrics` for each row of `weights`, of rows or of blocks: arrays [weightings], NaN where not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: np.asarray(metric(weights), dtype=np.float64) for name, metric in metrics.items()}
