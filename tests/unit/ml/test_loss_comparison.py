"""The losses of two models on recent rows: long memory where nothing changed, a short one after a change, no difference by chance."""

import numpy as np
import pytest

from mlops_assets.ml.loss_comparison import WindowLosses, choose_look_back, compare_losses

DAYS = 7
ROWS = 100


def windows(*advantages: float, seed: int = 0) -> list[WindowLosses]:
    """Windows of a week in which `new` has a smaller loss than `old` by the advantage, with noise that the rows of a day share."""
    random = np.random.default_rng(seed)
    made = []
    for advantage in advantages:
        blocks = np.repeat(np.arange(DAYS), ROWS)
        old = 1 + random.normal(0, 0.3, DAYS * ROWS)
        new = old - advantage + np.repeat(random.normal(0, 0.05, DAYS), ROWS) + random.normal(0, 0.1, DAYS * ROWS)
        made.append(WindowLosses.from_rows({"old": old, "new": new}, blocks))
    return made


def test_all_windows_count_where_nothing_changed():
    counts = [
        choose_look_back([w.sums["new"] - w.sums["old"] for w in made], [w.rows for w in made])
        for made in (windows(*[0.02] * 12, seed=seed) for seed in range(20))
    ]
    assert np.median(counts) >= 8


def test_only_the_windows_after_a_change_count():
    difference = compare_losses(windows(*[-0.3] * 20, 0.3, 0.3), "new", "old")
    assert difference is not None
    assert difference.windows <= 2
    assert difference.is_better


def test_a_model_that_is_equal_is_seldom_better():
    differences = [compare_losses(windows(*[0.0] * 8, seed=seed), "new", "old") for seed in range(100)]
    assert sum(difference is not None and difference.is_better for difference in differences) <= 8


def test_rows_of_a_day_do_not_count_as_independent():
    # One bad day of a thousand rows is one observation.
    losses = {"old": np.zeros(7000), "new": np.repeat([-0.1, 0.05, 0.1, 0.0, -0.05, -0.15, 0.05], 1000)}
    difference = compare_losses([WindowLosses.from_rows(losses, np.repeat(np.arange(7), 1000))], "new", "old")
    assert difference is not None
    assert not difference.is_better


def test_a_candidate_is_compared_where_it_has_losses():
    [first, second] = windows(0.2, 0.2)
    without = WindowLosses(sums={"old": first.sums["old"]}, rows=first.rows)
    difference = compare_losses([without, second], "new", "old")
    assert difference is not None
    assert (difference.windows, difference.rows) == (1, DAYS * ROWS)


@pytest.mark.parametrize("days", [0, 1, 4])
def test_too_few_days_decide_nothing(days):
    window = WindowLosses.from_rows({"old": np.ones(days), "new": np.zeros(days)}, np.arange(days))
    assert compare_losses([window], "new", "old") is None
