"""Rows in the order of their scores, whose weights give the metrics of a ranking.

The area under the ROC curve is the weighted Mann-Whitney statistic with ties counted half (Fawcett, "An introduction to ROC
analysis", Pattern Recognition Letters 27, 2006); average precision is the sum over thresholds of precision times the step of recall, as
scikit-learn defines it. Rows of equal score are a group; only the groups that hold a positive row matter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Rows by falling score, for the weights of each.

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

    def count(self, blocks: np.ndarray) -> "CountedRanking":
        """The ranking for the weights of the numbered `blocks` [rows], which their rows have."""
        count, groups, places = int(blocks.max()) + 1, len(self.ends), np.arange(len(self.order))
        # The first group that ends after a row: the rows between two groups are above the later one.
        ending = np.searchsorted(self.ends, places, side="right")
        inside = np.append(self.begins, len(places))[ending] <= places
        of_positives = np.searchsorted(self.first_positives, np.arange(len(self.positives)), side="right") - 1

        def counted(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
            cells = np.bincount(blocks[rows] * (groups + 1) + group, minlength=count * (groups + 1))
            return cells.reshape(count, groups + 1)[:, :groups].astype(np.float64)

        return CountedRanking(
            up_to=np.cumsum(counted(self.order, ending), axis=1),
            within=counted(self.order[inside], ending[inside]),
            positives=counted(self.positives, of_positives),
            rows=np.bincount(blocks, minlength=count).astype(np.float64),
        )

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
        return {
            "roc_auc": _area((positives * negatives_beyond).sum(axis=1), total, total_negatives),
            "average_precision": _mean_precision(positives, positives_up_to, up_to, total_negatives),
        }


@dataclass(frozen=True)
class CountedRanking:
    """A ranking whose rows are counted by block, for the weights of blocks.

    Of each block how many rows are `up_to` the end of each group, how many are `within` it, and how many of these are `positives` [blocks,
    groups]; and how many `rows` it has [blocks].
    """

    up_to: np.ndarray
    within: np.ndarray
    positives: np.ndarray
    rows: np.ndarray

    def roc_auc(self, weights: np.ndarray) -> np.ndarray:
        """The area under the ROC curve for each row of `weights` [weightings, blocks]; NaN where one class has no weight."""
        right = ((weights @ self._ranked_right) * weights).sum(axis=1)
        total = weights @ self.positives.sum(axis=1)
        return _area(right, total, weights @ self.rows - total)

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """The average precision for each row of `weights` [weightings, blocks]; NaN where one class has no weight."""
        positives = weights @ self.positives
        positives_up_to = weights @ np.cumsum(self.positives, axis=1)
        total = weights @ self.positives.sum(axis=1)
        return _mean_precision(positives, positives_up_to, weights @ self.up_to, weights @ self.rows - total)

    @cached_property
    def _ranked_right(self) -> np.ndarray:
        """How many pairs of a positive of one block and a negative of another are ranked right, those of equal score half [blocks, blocks]."""
        positives_up_to = np.cumsum(self.positives, axis=1)
        negatives = self.rows - self.positives.sum(axis=1)
        negatives_within = self.within - self.positives
        negatives_beyond = negatives[:, None] - (self.up_to - positives_up_to) + negatives_within / 2
        return self.positives @ negatives_beyond.T


def _area(right: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """The share of the pairs of a positive and a negative that are ranked `right`; NaN without pairs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((positives > 0) & (negatives > 0), right / (positives * negatives), np.nan)


def _mean_precision(positives: np.ndarray, positives_up_to: np.ndarray, up_to: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """The mean over the `positives` of the precision up to their group, all [weightings, groups]; NaN where one class has no weight."""
    total = positives.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(up_to > 0, positives_up_to / up_to, 0.0)
        return np.where((total > 0) & (negatives > 0), (positives * precision).sum(axis=1) / total, np.nan)
