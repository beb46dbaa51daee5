"""Forecast of what a training gains: from probes, small models of which one is fitted as of a window and one as of the model in service.

A model in service and the one before it grow old together, and stop telling how a new one would do. Probes do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from mlops_assets.ml.loss_comparison import LossDifference, WindowLosses, compare_losses

YOUNGER, OLDER = "younger", "older"
"""The probes in the losses of a window: fitted for the window, and for the day of the model then in service."""

PROBE_ROWS = 2000
"""The most rows that a probe is fitted on."""
TRAINING_COST = 0.1
"""What a training may cost, as a share of the loss of one window."""

_CONFIDENCE = 0.998
"""Of the interval in which a younger model must be better: the question is put in every window."""
LEAST_GAIN = 0.02
"""The least gain of a training that is forecast, as a share of the loss."""


@dataclass(frozen=True)
class TrainingCosts:
    """What a training costs, and what a unit of the mean loss costs per prediction, in one unit."""

    training: float
    loss: float

    def share(self, mean_loss: float, predictions: float) -> float:
        """Return the cost of a training as a share of what the loss of a window of so many predictions costs."""
        return self.training / (self.loss * mean_loss * predictions)


@dataclass(frozen=True)
class TrainingForecast:
    """What a day of age costs, with its interval, and the age in days from which a training pays (None: not beyond chance)."""

    day_of_age: LossDifference
    due: float | None

    @property
    def helps(self) -> bool:
        """Whether newer history helps beyond chance."""
        return self.day_of_age.is_better


def forecast_training(
    ages: Sequence[WindowLosses],
    *,
    loss: float | None,
    window_days: int,
    training_cost: float = TRAINING_COST,
    least_gain: float = LEAST_GAIN,
    seed: int = 0,
) -> TrainingForecast | None:
    """Forecast from `ages`, the losses of both probes divided by the days between them; None where they are too few.

    With a `loss` that grows by `slope` a day, trainings every T days cost C / T + slope T / 2 a day: least at T = sqrt(2 C / slope). Until
    then it must have grown by the share `least_gain` too.
    """
    day_of_age = compare_losses(ages, YOUNGER, OLDER, fewest_windows=2, seed=seed)
    if day_of_age is None:
        return None
    certain = compare_losses(ages, YOUNGER, OLDER, confidence=_CONFIDENCE, fewest_windows=2, seed=seed)
    if certain is None or not certain.is_better or not loss:
        return TrainingForecast(day_of_age, None)
    slope = -certain.value / loss
    return TrainingForecast(day_of_age, max(sqrt(2 * training_cost * window_days / slope), least_gain / slope))
