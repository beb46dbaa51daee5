"""Comparisons of the model in service with the one before it, and with itself recalibrated, on the same recent labelled rows.

The live decision and the policies of `update_policies.py` decide by these.
"""

from collections.abc import Sequence

from mlops_assets.ml.loss_comparison import LossDifference, WindowLosses, compare_losses

CHAMPION, PREVIOUS, RECALIBRATED = "champion", "previous", "recalibrated"
"""Models in the losses of a window: the one in service, the one before it, and the one in service if it was recalibrated anew for the
window by the labels known before."""

CONFIDENCE = 0.99
_FEWEST_WINDOWS = 2
"""One window of seven days has brought back the worse model."""


def compare_with_previous(
    windows: Sequence[WindowLosses], *, confidence: float = CONFIDENCE, seed: int = 0
) -> LossDifference | None:
    """Return by how much the model in service loses more than the one before it, over two windows or more; None where that is not known."""
    return compare_losses(windows, CHAMPION, PREVIOUS, confidence=confidence, fewest_windows=_FEWEST_WINDOWS, seed=seed)


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
