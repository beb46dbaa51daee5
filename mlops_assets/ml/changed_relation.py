"""Changes of the relation between features and label that are put into labelled rows, to see whether a loop of retraining learns them.

In the rows that follow the changed rule the label is another one: the other class, the next one, or the value mirrored at the median.
"""

from typing import Literal, get_args

import numpy as np

from mlops_assets.schema.problem import Problem

ChangeKind = Literal["abrupt", "gradual", "recurring", "seasonal"]
"""`abrupt`: all rows from the first day on. `gradual`: a share that grows to all rows by the last day. `recurring`: all rows of every second
period of 28 days. `seasonal`: a share that rises to all rows and falls again, once between the first and the last day."""

CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
_PERIOD_DAYS = 28


def changed_share(kind: ChangeKind, ages: np.ndarray, length: int) -> np.ndarray:
    """Return the share of rows that follow the changed rule, by the days since the first day of the change, of `length` days in all."""
    match kind:
        case "abrupt":
            share = np.ones(len(ages))
        case "gradual":
            share = (ages + 1) / length
        case "recurring":
            share = (ages // _PERIOD_DAYS % 2 == 0).astype(float)
        case "seasonal":
            share = (1 - np.cos(2 * np.pi * ages / length)) / 2
    return np.where((ages >= 0) & (ages < length), share, 0.0)


def change_labels(problem: Problem, labels: np.ndarray, shares: np.ndarray, *, classes: int = 2, seed: int = 0) -> np.ndarray:
    """Return the labels, of which a share by row follows the changed rule; labels of classes are positions from 0 on."""
    changed = np.random.default_rng(seed).random(len(labels)) < shares
    other = 2 * np.median(labels) - labels if problem == "regression" else (labels + 1) % classes
    return np.where(changed, other, labels)
