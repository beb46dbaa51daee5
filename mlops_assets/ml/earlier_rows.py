"""Whether rows from before the window help: the average that would serve, fitted with and without them, compared on later rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import numpy as np

from mlops_assets.ml.history import History
from mlops_assets.ml.loss_comparison import LossDifference, WindowLosses, compare_losses
from mlops_assets.ml.shared_fits import Models

_WITH, _WITHOUT = "with earlier rows", "without earlier rows"
_CONFIDENCE = 0.998
"""As of probes: the question is put at every training, and one hold-out is a short time."""


def without_earlier_rows(histories: Sequence[History]) -> tuple[History, ...]:
    """Return the histories of the window alone."""
    return tuple(replace(history, earlier=0) for history in histories)


def compare_earlier_rows(
    models: Models, histories: Sequence[History], day: date, places: np.ndarray, blocks: np.ndarray
) -> LossDifference | None:
    """Return what the average of `histories` before `day` loses more than the same without earlier rows, on the rows at `places`.

    `blocks` [places] tells which rows share their causes, such as those of a day. None where too few rows tell.
    """
    averages = {_WITH: tuple(histories), _WITHOUT: without_earlier_rows(histories)}
    losses = {name: models.average(average, day).losses[places] for name, average in averages.items()}
    return compare_losses([WindowLosses.from_rows(losses, blocks)], _WITH, _WITHOUT, confidence=_CONFIDENCE)
