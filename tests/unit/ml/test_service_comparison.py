"""How often a model that is as good as the one before it is taken for worse, over all the windows that it is watched."""

import numpy as np

from mlops_assets.ml.loss_comparison import WindowLosses
from mlops_assets.ml.service_comparison import CHAMPION, PREVIOUS, compare_with_previous, fit_recent

WATCHED_WINDOWS = 6


def test_equal_models_are_rolled_back_about_once_in_a_hundred_deployments() -> None:
    rolled_back = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        windows = []
        for _ in range(WATCHED_WINDOWS):
            rows = random.integers(80, 120, 7)
            # Rows of a day share their weather.
            sums = {name: rows * (0.5 + random.normal(0, 0.05, 7)) for name in (CHAMPION, PREVIOUS)}
            windows.append(WindowLosses(sums=sums, rows=rows))
        assert compare_with_previous(windows[:1], watch=WATCHED_WINDOWS, seed=seed) is None
        looks = range(2, WATCHED_WINDOWS + 1)
        differences = [compare_with_previous(windows[:count], watch=WATCHED_WINDOWS, seed=seed) for count in looks]
        rolled_back += any(difference is not None and difference.is_worse for difference in differences)
    assert rolled_back <= 1


def test_few_rows_and_labels_that_fall_with_the_scores_recalibrate_nothing() -> None:
    random = np.random.default_rng(0)
    scores = random.random(400)
    labels = (random.random(400) < scores).astype(int)
    assert fit_recent("binary_classification", scores[:199], labels[:199]) is None
    assert fit_recent("binary_classification", scores, 1 - labels) is None
    fitted = fit_recent("binary_classification", scores, labels)
    assert fitted is not None
    assert fitted.method == "sigmoid"
