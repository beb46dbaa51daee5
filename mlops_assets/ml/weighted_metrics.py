"""The metrics of `metrics.py` for many weightings of the same rows at once, as the bootstrap needs them.

A row of weight 2 counts twice: weights that count how often a resample drew each row give the metrics of that resample, without
building it. Everything that does not depend on the weights (the order of the scores, the loss of each row) is computed once.
The area under the ROC curve is the weighted Mann-Whitney statistic with ties counted half (Fawcett, "An introduction to ROC
analysis", Pattern Recognition Letters 27, 2006); average precision is the sum over thresholds of precision times the step of recall, as
scikit-learn defines it. The bins of the expected calibration error stay those of the whole rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlops_assets.ml.metrics import CALIBRATION_BINS, calibration_bins
from mlops_assets.schema.problem import Problem

_SMALLEST = np.finfo(np.float64).eps
_RANKING = ("roc_auc", "average_precision")


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
    """The judged rows: `labels`, `predictions`, `classes` and `threshold` are those of `metrics.compute_metrics`."""

    problem: Problem
    labels: np.ndarray
    predictions: np.ndarray
    classes: Sequence[int | str]
    threshold: float

    def of(self, weights: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
        """The metrics `names` for each row of `weights` [weightings, rows]: arrays [weightings], NaN where not defined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.problem == "binary_classification":
                found = self._binary(weights, names)
            elif self.problem == "multiclass_classification":
                found = self._multiclass(weights, names)
            else:
                found = self._regression(weights)
        return {name: found[name] for name in names}

    def _binary(self, weights: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
        found = self._rankings[0].metrics(weights) if set(names) & set(_RANKING) else {}
        sums = weights @ self._binary_rows
        total, positive, decided, hit, correct, log_loss, brier = sums[:, :7].T
        recall, specificity = hit / positive, (correct - hit) / (total - positive)
        return found | {
            "log_loss": log_loss / total,
            "brier_score": brier / total,
            "expected_calibration_error": np.abs(sums[:, 7:]).sum(axis=1) / total,
            "accuracy": correct / total,
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": hit / decided,
            "recall": recall,
            "f1": 2 * hit / (decided + positive),
        }

    def _multiclass(self, weights: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
        found = {}
        if "roc_auc" in names:
            areas = np.stack([ranking.metrics(weights)["roc_auc"] for ranking in self._rankings])
            defined = ~np.isnan(areas)
            found["roc_auc"] = np.where(defined, areas, 0.0).sum(axis=0) / defined.sum(axis=0)
        total = weights.sum(axis=1)
        members = weights @ self._truth
        hits = weights @ (self._truth * self._correct[:, None])
        present = members > 0
        return found | {
            "log_loss": weights @ self._log_loss / total,
            "accuracy": hits.sum(axis=1) / total,
            "balanced_accuracy": np.where(present, hits / members, 0.0).sum(axis=1) / present.sum(axis=1),
        }

    def _regression(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        # Moved to their mean first, so that the variance does not drown in the rounding of large squares.
        centred = self.labels - self.labels.mean()
        error = self.predictions - self.labels
        columns = np.column_stack([np.ones(len(error)), np.abs(error), error**2, centred, centred**2])
        total, absolute, squared, first, second = (weights @ columns).T
        variation = second - first**2 / total
        return {
            "mean_absolute_error": absolute / total,
            "root_mean_squared_error": np.sqrt(squared / total),
            "r2": np.where(variation > 1e-12 * second, 1 - squared / variation, np.nan),
        }

    @cached_property
    def _rankings(self) -> list[Ranking]:
        if self.problem == "binary_classification":
            return [Ranking.of(self.labels, self.predictions)]
        return [Ranking.of(self._truth[:, code], self.predictions[:, code]) for code in range(len(self.classes))]

    @cached_property
    def _binary_rows(self) -> np.ndarray:
        """What each row adds: 1, is positive, is decided positive, both, is right, log loss, Brier score, excess in its bin."""
        positive = self.labels.astype(np.float64)
        decided = (self.predictions >= self.threshold).astype(np.float64)
        likelihood = np.where(positive == 1, self.predictions, 1 - self.predictions)
        error = self.predictions - positive
        bins = np.zeros((len(positive), CALIBRATION_BINS))
        bins[np.arange(len(positive)), calibration_bins(self.predictions, CALIBRATION_BINS)] = error
        columns = [
            np.ones(len(positive)),
            positive,
            decided,
            positive * decided,
            positive == decided,
            _log_loss(likelihood),
            error**2,
        ]
        return np.column_stack([*columns, bins])

    @cached_property
    def _truth(self) -> np.ndarray:
        """1 where the row is of the class [rows, classes]."""
        return np.stack([self.labels == value for value in self.classes], axis=1).astype(np.float64)

    @cached_property
    def _correct(self) -> np.ndarray:
        return self._truth[np.arange(len(self.labels)), self.predictions.argmax(axis=1)]

    @cached_property
    def _log_loss(self) -> np.ndarray:
        shares = self.predictions / self.predictions.sum(axis=1, keepdims=True)
        return _log_loss((shares * self._truth).sum(axis=1))


def _log_loss(likelihood: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(likelihood, _SMALLEST, 1 - _SMALLEST))
