"""Evaluated rows, and their metrics for many weightings at once, as the bootstrap needs them.

A row of weight 2 counts twice: weights that count how often a resample drew each row give the metrics of that resample, without
building it. Everything that does not depend on the weights (the order of the scores, the loss of each row) is computed once.
The area under the ROC curve is the weighted Mann-Whitney statistic with ties counted half (Fawcett, "An introduction to ROC
analysis", Pattern Recognition Letters 27, 2006); average precision is the sum over thresholds of precision times the step of recall, as
scikit-learn defines it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mlops_assets.schema.metric_names import METRICS
from mlops_assets.schema.problem import Problem

Weighted = Callable[[np.ndarray], np.ndarray]
"""A metric of some rows as a function of their weights [weightings, rows]; NaN where it is not defined."""


@dataclass(frozen=True)
class Ranking:
    """Rows by falling score, in groups of equal score; only the groups that hold a positive row matter.

    `order` are all rows [rows], `positives` the positive ones [positives] in that order. For each group with a positive row: where
    it begins and ends in `order`, and where its positives begin in `positives`.
    """

    order: np.ndarray
    positives: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    first_positives: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> "Ranking":
        """The ranking of 0/1 `labels` by `scores`."""
        order = np.argsort(-scores, kind="stable")
        ranked, positive = scores[order], np.flatnonzero(labels[order])
        groups = np.append(0, np.cumsum(np.diff(ranked) != 0))
        sizes = np.bincount(groups)
        held, first_positives = np.unique(groups[positive], return_index=True)
        ends = np.cumsum(sizes)[held]
        return cls(order=order, positives=order[positive], begins=ends - sizes[held], ends=ends, first_positives=first_positives)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`roc_auc` and `average_precision` for each row of `weights` [weightings, rows]; NaN where one class has no weight."""
        # Both metrics ask in turn with the same weights.
        if self._last.get("weights") is not weights:
            self._last.update({"weights": weights, **self._compute(weights)})
        return self._last

    @cached_property
    def _last(self) -> dict[str, np.ndarray]:
        return {}

    def _compute(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        if not len(self.positives):
            undefined = np.full(len(weights), np.nan)
            return {"roc_auc": undefined, "average_precision": undefined}
        ranked = np.zeros((len(weights), len(self.order) + 1))
        np.cumsum(np.take(weights, self.order, axis=1), axis=1, out=ranked[:, 1:])
        above, up_to = np.take(ranked, self.begins, axis=1), np.take(ranked, self.ends, axis=1)
        positives = np.add.reduceat(np.take(weights, self.positives, axis=1), self.first_positives, axis=1)
        positives_up_to = np.cumsum(positives, axis=1)
        total = positives_up_to[:, -1]
        total_negatives = ranked[:, -1] - total
        # A positive is ranked right against the negatives below its group, and half right against those within it.
        negatives_beyond = total_negatives[:, None] - ((above + up_to) - (2 * positives_up_to - positives)) / 2
        defined = (total > 0) & (total_negatives > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(up_to > 0, positives_up_to / up_to, 0.0)
            return {
                "roc_auc": np.where(defined, (positives * negatives_beyond).sum(axis=1) / (total * total_negatives), np.nan),
                "average_precision": np.where(defined, (positives * precision).sum(axis=1) / total, np.nan),
            }


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

    def of(self, weights: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The metrics `names` for each row of `weights` [weightings, rows]: arrays [weightings], NaN where not defined."""
        values = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in names:
                if name not in self._prepared:
                    self._prepared[name] = METRICS.get(name)(self)
                values[name] = np.asarray(self._prepared[name](weights), dtype=np.float64)
        return values

    def values(self, names: Iterable[str]) -> dict[str, float | None]:
        """The metrics `names` of the rows as they are. One that they do not define (a ranking with one class present) is None."""
        once = np.ones((1, len(self.labels)))
        return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in self.of(once, names).items()}

    def mean(self, values: np.ndarray) -> Weighted:
        """The metric that is the weighted mean of `values` [rows]."""
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> Weighted:
        """The metric that is the weighted sum of one column over that of another; not defined where the latter is 0."""
        columns = np.column_stack([numerator, denominator]).astype(np.float64)

        def divided(weights: np.ndarray) -> np.ndarray:
            above, below = (weights @ columns).T
            return above / below

        return divided

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
