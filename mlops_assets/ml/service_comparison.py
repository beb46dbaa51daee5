"""Comparisons of the model in service: with the one before it and with itself recalibrated on the same recent rows, and with its hold-out.

The live decision and the policies of `update_policies.py` decide by these.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from mlops_assets.ml.bootstrap import FEWEST_BLOCKS
from mlops_assets.ml.loss_comparison import LossDifference, WindowLosses, choose_look_back, compare_losses
from mlops_assets.ml.recalibration import fit_recalibration
from mlops_assets.ml.recalibration_methods import FEWEST_ROWS, METHODS, Recalibration
from mlops_assets.schema.problem import Problem

CHAMPION, PREVIOUS, RECALIBRATED = "champion", "previous", "recalibrated"
"""Models in the losses of a window: the one in service, the one before it, and the one in service if it was recalibrated anew for the
window by the labels known before."""

CONFIDENCE = 0.99
_FEWEST_WINDOWS = 2
"""One window of seven days has brought back the worse model."""


def fit_recent(problem: Problem, predictions: np.ndarray, labels: np.ndarray) -> Recalibration | None:
    """Fit the method with the fewest parameters; None of fewer than `FEWEST_ROWS` rows, or where the labels do not rise with the predictions.

    A training mends that, no curve does. Labels of several classes are positions.
    """
    if len(labels) < FEWEST_ROWS:
        return None
    try:
        return fit_recalibration(METHODS[problem][0], predictions, labels)
    except ValueError:
        return None


def compare_with_previous(
    windows: Sequence[WindowLosses], *, watch: int, confidence: float = CONFIDENCE, seed: int = 0
) -> LossDifference | None:
    """Return by how much the model in service loses more than the one before it, over two windows or more; None where that is not known.

    It is asked in every window of the `watch`, and the chance of a wrong answer is divided among them.
    """
    looks = max(watch - _FEWEST_WINDOWS + 1, 1)
    return compare_losses(
        windows,
        CHAMPION,
        PREVIOUS,
        confidence=1 - (1 - confidence) / looks,
        fewest_windows=_FEWEST_WINDOWS,
        seed=seed,
    )


def compare_recalibrated(
    windows: Sequence[WindowLosses], *, confidence: float = CONFIDENCE, seed: int = 0
) -> LossDifference | None:
    """Return by how much the recalibrated model loses more than the one in service; None where that is not known."""
    return compare_losses(windows, RECALIBRATED, CHAMPION, confidence=confidence, seed=seed)


def describe_difference(difference: LossDifference) -> str:
    """Return the difference with its interval, rows and windows in words."""
    return (
        f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) over {difference.rows:,} rows of "
        f"{difference.windows} {'window' if difference.windows == 1 else 'windows'}"
    )


def mean_loss(windows: Sequence[WindowLosses], name: str) -> float | None:
    """Return the mean loss of a model over the rows of `windows`; None without rows."""
    held = [window for window in windows if name in window.sums]
    rows = sum(int(window.rows.sum()) for window in held)
    return sum(float(window.sums[name].sum()) for window in held) / rows if rows else None


def rise_of_loss(windows: Sequence[WindowLosses], reference: WindowLosses, name: str, *, effect: float) -> LossDifference | None:
    """Return by how much the loss of a model over its adaptive look-back exceeds that of `reference`, if it does beyond chance.

    It must exceed it by the share `effect` too. The two samples are of different rows: their errors add up. Three standard errors are
    asked for, since the question is put again in every window; of few blocks more, by Student's distribution.
    """
    from scipy.stats import norm, t

    held = [window for window in windows if name in window.sums]
    count = choose_look_back([window.sums[name] for window in held], [window.rows for window in held])
    before = mean_loss([reference], name) if len(reference.rows) >= FEWEST_BLOCKS else None
    now = mean_loss(held[-count:], name) if count else None
    if count is None or now is None or not before:
        return None
    fewest = min(len(reference.rows), sum(len(window.rows) for window in held[-count:]))
    errors = float(t.ppf(norm.cdf(3), fewest - 1))
    error = errors * sqrt(_variance(held[-count:], name, now) + _variance([reference], name, before))
    difference = now - before
    if difference - error <= 0 or difference < effect * before:
        return None
    return LossDifference(
        value=difference,
        low=difference - error,
        high=difference + error,
        windows=count,
        rows=sum(int(window.rows.sum()) for window in held[-count:]),
    )


def _variance(windows: Sequence[WindowLosses], name: str, mean: float) -> float:
    """The variance of a mean loss, from the blocks."""
    squares, blocks, rows = 0.0, 0, 0
    for window in windows:
        squares += float(((window.sums[name] - mean * window.rows) ** 2).sum())
        blocks, rows = blocks + len(window.rows), rows + int(window.rows.sum())
    return squares * blocks / max(blocks - 1, 1) / rows**2
