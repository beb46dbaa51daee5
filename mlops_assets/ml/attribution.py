"""Attributions: the share of each feature in what moves the predictions, in a window and on the hold-out.

The share is that of the mean absolute Shapley contributions. What is usual is how far the days of the window lie from each other: the difference
of the window is held against that of a single day, which is calm, since several days together vary less than each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.bootstrap import errors_of_chance
from mlops_assets.ml.loss_comparison import row_blocks


@dataclass(frozen=True)
class AttributionShift:
    """The `share` of a feature in a window, that on the hold-out, and the difference that the days of the window explain."""

    feature: str
    share: float
    usual_share: float
    usual_difference: float

    @property
    def difference(self) -> float:
        """How far the window is from the hold-out."""
        return abs(self.share - self.usual_share)

    @property
    def words(self) -> str:
        """Both shares in words."""
        return (
            f"{self.share:.1%} of what moves the predictions, {self.usual_share:.1%} on the hold-out; "
            f"days differ by up to {self.usual_difference:.1%}"
        )


def compare_attributions(
    window: np.ndarray, days: np.ndarray, holdout: np.ndarray, *, features: Sequence[str], false_alarms: float
) -> list[AttributionShift]:
    """Return the shift of each of `features`, the largest first, from sizes of contributions [rows, features].

    `days` [rows] are those of the window. `false_alarms` is the probability that any difference exceeds `usual_difference` although
    the hold-out is like a day of the window; it is divided among the features.
    """
    _, blocks = np.unique(row_blocks(days, np.arange(len(days))), return_inverse=True)
    by_block = np.array([_shares(window[blocks == block]) for block in range(int(blocks.max()) + 1)])
    deviation = by_block.std(axis=0, ddof=1) * np.sqrt(1 + 1 / len(by_block))
    # Either side: a share may grow or fall.
    chance = errors_of_chance(false_alarms / len(features) / 2, blocks)
    shifts = [
        AttributionShift(name, float(share), float(usual), float(chance * error))
        for name, share, usual, error in zip(features, _shares(window), _shares(holdout), deviation, strict=True)
    ]
    return sorted(shifts, key=lambda shift: -shift.difference)


def _shares(contributions: np.ndarray) -> np.ndarray:
    means = contributions.mean(axis=0)
    return means / max(float(means.sum()), np.finfo(float).tiny)
