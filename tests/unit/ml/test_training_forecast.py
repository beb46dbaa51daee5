"""The forecast of what a training gains: nothing from chance, the sooner the more a day of age costs, and only when it is certain."""

import numpy as np
import pytest

from mlops_assets.ml.loss_comparison import WindowLosses
from mlops_assets.ml.training_forecast import OLDER, YOUNGER, TrainingForecast, forecast_training


def forecast(a_day: float, *, windows: int = 12, seed: int = 0) -> TrainingForecast | None:
    """The forecast from weeks of 100 rows a day in which a day of age costs `a_day` of a loss of 0.5."""
    random = np.random.default_rng(seed)
    ages = [
        WindowLosses(
            sums={YOUNGER: random.normal(1, 0.1, 7), OLDER: random.normal(1, 0.1, 7) + 100 * a_day}, rows=np.full(7, 100)
        )
        for _ in range(windows)
    ]
    return forecast_training(ages, loss=0.5, window_days=7)


def test_where_age_costs_nothing_a_training_does_not_help():
    forecasts = [forecast(0, seed=seed) for seed in range(100)]
    assert sum(each is not None and each.helps for each in forecasts) <= 8
    assert sum(each is not None and each.due is not None for each in forecasts) <= 2


@pytest.mark.parametrize(("a_day", "due"), [(0.01, 8.4), (0.005, 11.8), (0.0025, 16.7)])
def test_the_more_a_day_of_age_costs_the_sooner_a_training_pays(a_day: float, due: float):
    made = forecast(a_day)
    assert made is not None
    assert made.helps
    assert made.due == pytest.approx(due, rel=0.1)
    assert made.day_of_age.value == pytest.approx(-a_day, rel=0.2)


def test_one_window_is_too_few():
    assert forecast(0.01, windows=1) is None
