"""The distances of the windows inside the reference period from the whole of it: what is usual for a window in which nothing is wrong.

A window is unusual when it is farther from the period than all of its windows, and farther than their robust spread makes likely: than their
median plus as many of their spreads as Student's distribution exceeds with the probability of a false alarm. Few windows say little about
rare distances.

The effects are those between windows alone, without the sampling errors of their rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mlops_assets.ml.reference_windows import FEWEST_WINDOWS

DISTANCE_SCHEMA = pa.schema(
    [("window", pa.string()), ("feature", pa.string()), ("method", pa.string()), ("effect", pa.float64())]
)
"""The effect of one distance of one window of the period, of all its rows, on the scale of the Jensen-Shannon distance."""

Cell = tuple[str, str]
"""Feature and method."""

_UPPER, _UPPER_DEVIATIONS = 0.9, 1.2816
"""A quantile of a normal distribution, and how many standard deviations it is above the median."""

_DEVIATIONS_OF_SPREAD = 1.4826
"""The standard deviation of a normal distribution in median absolute deviations."""


@dataclass(frozen=True)
class UsualDrift:
    """The effects of the windows of the period by cell, each of `FEWEST_WINDOWS` or more."""

    effects: Mapping[Cell, np.ndarray]

    def limit(self, cell: Cell, probability: float) -> float:
        """The effect that a usual window exceeds with `probability`; 0 of a cell that is not known."""
        effects = self.effects.get(cell)
        return 0.0 if effects is None else usual_limit(effects, probability, degrees=len(effects) - 1)

    def median(self, cell: Cell) -> float | None:
        """The usual effect; None of a cell that is not known."""
        return float(np.median(self.effects[cell])) if cell in self.effects else None

    def farther(self, cell: Cell, effect: float | None) -> int | None:
        """Return how many windows of the period are as far as `effect`; None of a cell that is not known."""
        return None if effect is None or cell not in self.effects else int((self.effects[cell] >= effect).sum())

    def windows(self, cell: Cell) -> int:
        """Return how many windows the period has."""
        return len(self.effects.get(cell, ()))


def usual_limit(distances: np.ndarray, probability: float, *, degrees: int) -> float:
    """The distance that a usual one exceeds with `probability`: at least the farthest of `distances`, and their median with as many of their
    robust spreads as Student's distribution of so many `degrees` exceeds.
    """
    from scipy.special import stdtrit

    median = np.median(distances)
    spread = _DEVIATIONS_OF_SPREAD * np.median(np.abs(distances - median))
    upper = (np.quantile(distances, _UPPER) - median) / _UPPER_DEVIATIONS
    return float(max(distances.max(), median - stdtrit(degrees, probability) * max(spread, upper)))


NOTHING_USUAL = UsualDrift({})


def usual_drift(distances: pa.Table) -> UsualDrift:
    """The usual drift from a table of `DISTANCE_SCHEMA`."""
    effects: dict[Cell, list[float]] = {}
    for row in distances.to_pylist():
        effects.setdefault((row["feature"], row["method"]), []).append(row["effect"])
    return UsualDrift({cell: np.array(values) for cell, values in effects.items() if len(values) >= FEWEST_WINDOWS})


def importance_shares(losses: Mapping[str, float], features: Sequence[str]) -> dict[str, float]:
    """The share of each of `features` in the importance of all; empty when nothing is known of it."""
    positive = {name: max(0.0, losses.get(name, 0.0)) for name in features}
    total = sum(positive.values())
    return {name: value / total for name, value in positive.items()} if total > 0 else {}
