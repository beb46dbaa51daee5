"""Difference of the losses of two models on recent labelled rows, over a look-back that the data choose.

The look-back is that of the adaptive rolling window of Han, Huang and Wang, "Model Assessment and Selection under Temporal Distribution
Shift" (ICML 2024, arXiv 2402.08672), after Goldenshluger and Lepski: the mean difference of two losses over the last windows has an error
of chance, which falls with the number of windows, and a bias, which grows with it where the world changed. The bias of a look-back is
estimated by how far its mean lies from those of the shorter ones, beyond chance.

Rows of one day share their causes. So a block of rows, such as a day, is the unit of every variance and of the bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.bootstrap import FEWEST_BLOCKS
from mlops_assets.schema.problem import Problem

_CHANCE = 1.0
"""Standard errors that a mean is expected to be wrong by. The paper's constant for a bound that always holds looks back too far."""
_REPLICATES = 1000
_SMALLEST = 0.01
"""Probabilities below it count as it in the losses that decide: one row that was thought impossible would hide a thousand others."""
_GROUPS = 30


@dataclass(frozen=True)
class WindowLosses:
    """The losses of several models on the same rows of one window: for each model the sum of each block [blocks].

    `rows` [blocks] counts the rows of each block.
    """

    sums: Mapping[str, np.ndarray]
    rows: np.ndarray

    @classmethod
    def from_rows(cls, losses: Mapping[str, np.ndarray], blocks: np.ndarray) -> "WindowLosses":
        """Add up the loss of each row of each model by the block that the row belongs to."""
        _, places = np.unique(blocks, return_inverse=True)
        sums = {name: np.bincount(places, weights=values) for name, values in losses.items()}
        return cls(sums=sums, rows=np.bincount(places))


@dataclass(frozen=True)
class LossDifference:
    """The mean loss of one model minus that of another over the last `windows` windows, with its interval; negative is better."""

    value: float
    low: float
    high: float
    windows: int
    rows: int

    @property
    def is_better(self) -> bool:
        """Whether the first model is better beyond chance."""
        return self.high < 0

    @property
    def is_worse(self) -> bool:
        """Whether the first model is worse beyond chance."""
        return self.low > 0


def row_losses(problem: Problem, labels: np.ndarray, predictions: np.ndarray, *, squared: bool) -> np.ndarray:
    """Return the loss of each row: the negative logarithm of the probability of what happened, or the error.

    Labels of several classes are positions in the columns of `predictions`.
    """
    match problem:
        case "binary_classification":
            happened = np.where(labels == 1, predictions, 1 - predictions)
        case "multiclass_classification":
            happened = predictions[np.arange(len(labels)), labels]
        case "regression":
            errors = np.abs(predictions - labels)
            return errors**2 if squared else errors
    return -np.log(np.clip(happened, _SMALLEST, 1))


def row_blocks(days: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the block of each row of a window: its day, or by its position in time one of 30 groups where the window has too few days."""
    return days if len(np.unique(days)) >= FEWEST_BLOCKS else positions % _GROUPS


def compare_losses(
    windows: Sequence[WindowLosses],
    ours: str,
    theirs: str,
    *,
    confidence: float = 0.95,
    fewest_windows: int = 1,
    seed: int = 0,
) -> LossDifference | None:
    """Return the difference of two models over the adaptive look-back, by a block bootstrap.

    None where there are fewer than `fewest_windows`, or too few blocks.
    """
    shared = [window for window in windows if ours in window.sums and theirs in window.sums]
    differences = [window.sums[ours] - window.sums[theirs] for window in shared]
    rows = [window.rows for window in shared]
    count = choose_look_back(differences, rows, fewest_windows=fewest_windows)
    if count is None:
        return None
    values, weights = np.concatenate(differences[-count:]), np.concatenate(rows[-count:]).astype(float)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(values), np.full(len(values), 1 / len(values)), size=_REPLICATES)
    means = (drawn @ values) / np.maximum(drawn @ weights, 1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    value, wider = float(values.sum() / weights.sum()), _wider(len(values), confidence)
    return LossDifference(
        value=value,
        low=value - wider * (value - float(low)),
        high=value + wider * (float(high) - value),
        windows=count,
        rows=int(weights.sum()),
    )


def _wider(blocks: int, confidence: float) -> float:
    """By how much the interval of few blocks must be wider than that of the bootstrap, which takes their variance for known.

    The factor is Student's quantile over the normal one, and that of the unbiased variance: Hesterberg, "What Teachers Should Know About the
    Bootstrap" (The American Statistician 69, 2015).
    """
    from scipy.stats import norm, t

    tail = (1 + confidence) / 2
    return float(t.ppf(tail, blocks - 1) / norm.ppf(tail) * np.sqrt(blocks / (blocks - 1)))


def choose_look_back(differences: Sequence[np.ndarray], rows: Sequence[np.ndarray], *, fewest_windows: int = 1) -> int | None:
    """Return over how many of the last windows the mean of `differences` errs least; None where all blocks together are too few.

    It is at least `fewest_windows`. Both are sums by block [blocks] of each window, in order of time: of the difference, and of the rows.
    """
    best, least = None, np.inf
    shorter: list[tuple[float, float]] = []
    for count in range(fewest_windows, len(differences) + 1):
        values, weights = np.concatenate(differences[-count:]), np.concatenate(rows[-count:]).astype(float)
        if len(values) < FEWEST_BLOCKS or not weights.sum():
            continue
        mean = values.sum() / weights.sum()
        squares = ((values - mean * weights) ** 2).sum() * len(values) / (len(values) - 1)
        chance = _CHANCE * np.sqrt(squares) / weights.sum()
        bias = max((abs(mean - other) - chance - error for other, error in shorter), default=0.0)
        shorter.append((mean, chance))
        if max(bias, 0.0) + chance < least:
            best, least = count, max(bias, 0.0) + chance
    return best
