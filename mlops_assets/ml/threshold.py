"""The decision threshold of a binary problem, chosen on scores of rows that the model had not seen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Objective = Callable[["Confusion"], np.ndarray]


@dataclass(frozen=True)
class Confusion:
    """Rows of each kind at many thresholds: arrays of equal length."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    true_negatives: np.ndarray
    false_negatives: np.ndarray


@dataclass(frozen=True)
class ChosenThreshold:
    """The threshold, from which a score counts as positive, and the value of the objective there."""

    threshold: float
    value: float


def f1(rows: Confusion) -> np.ndarray:
    """Harmonic mean of precision and recall."""
    return 2 * rows.true_positives / (2 * rows.true_positives + rows.false_positives + rows.false_negatives)


def accuracy(rows: Confusion) -> np.ndarray:
    """Share of right decisions."""
    right = rows.true_positives + rows.true_negatives
    return right / (right + rows.false_positives + rows.false_negatives)


def balanced_accuracy(rows: Confusion) -> np.ndarray:
    """Mean of the shares of right decisions among positives and among negatives."""
    positives, negatives = rows.true_positives + rows.false_negatives, rows.true_negatives + rows.false_positives
    return (rows.true_positives / positives + rows.true_negatives / negatives) / 2


METRICS: dict[str, Objective] = {"f1": f1, "accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
"""The metrics that a threshold can maximise."""


def negative_cost(false_positive: float, false_negative: float) -> Objective:
    """Minus the mean cost of a decision when the two errors cost so much."""

    def objective(rows: Confusion) -> np.ndarray:
        count = rows.true_positives + rows.false_positives + rows.true_negatives + rows.false_negatives
        return -(rows.false_positives * false_positive + rows.false_negatives * false_negative) / count

    return objective


def choose_threshold(labels: np.ndarray, scores: np.ndarray, objective: Objective) -> ChosenThreshold:
    """The threshold at which `objective` is greatest; of several the lowest.

    Every way to divide the rows by their score is tried; a threshold lies halfway between two scores, 0 takes all rows and one
    above the highest score takes none. Raises ValueError unless both labels (0 and 1) occur.
    """
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise ValueError("A decision threshold is chosen on rows of both classes.")
    distinct, codes = np.unique(scores.astype(np.float64), return_inverse=True)
    below = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    positives_below = np.concatenate([[0], np.cumsum(np.bincount(codes, weights=labels))])
    thresholds = np.concatenate([[0.0], (distinct[:-1] + distinct[1:]) / 2, [(distinct[-1] + 1) / 2]])
    rows = Confusion(
        true_positives=positives - positives_below,
        false_positives=(len(labels) - below) - (positives - positives_below),
        true_negatives=below - positives_below,
        false_negatives=positives_below,
    )
    values = objective(rows)
    best = int(np.argmax(values))
    return ChosenThreshold(threshold=float(thresholds[best]), value=float(values[best]))
