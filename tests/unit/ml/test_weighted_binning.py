"""Bins of weighted rows: the same as scikit-learn's own, of features that are sorted once."""

from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.ensemble._hist_gradient_boosting import binning

from mlops_assets.ml import weighted_binning

FEATURES, ROWS = 6, 4000


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn as it comes, and again after the test."""
    for name in ("_find_binning_thresholds", "_weighted_percentile"):
        function = getattr(binning, name)
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        monkeypatch.setattr(binning, name, function)


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Continuous, missing, tied, constant and few values; some rows weigh nothing."""
    random = np.random.default_rng(7)
    features = random.normal(size=(ROWS, FEATURES))
    features[random.random(ROWS) < 0.2, 1] = np.nan
    features[:, 2] = np.round(features[:, 2] * 40)
    features[:, 3] = 1.0
    features[:, 4] = np.round(features[:, 4])
    weights = random.exponential(size=ROWS) * (random.random(ROWS) < 0.9)
    return features, (features[:, 0] + random.normal(size=ROWS)) > 0, weights


def fit() -> HistGradientBoostingClassifier:
    features, labels, weights = rows()
    return HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(features, labels, sample_weight=weights)


def test_a_feature_is_sorted_once_and_its_bins_stay_the_same(own: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before, percentile = fit(), binning._weighted_percentile
    asked: list[Any] = []

    def counting(*arguments: Any, **named: Any) -> Any:
        asked.append(arguments)
        return percentile(*arguments, **named)

    monkeypatch.setattr(binning, "_weighted_percentile", counting)
    weighted_binning.sort_once()
    after = fit()
    assert 0 < len(asked) <= FEATURES
    for expected, found in zip(before._bin_mapper.bin_thresholds_, after._bin_mapper.bin_thresholds_, strict=True):
        assert np.array_equal(expected, found)
    assert np.array_equal(before.predict_proba(rows()[0]), after.predict_proba(rows()[0]))


def test_it_goes_once_scikit_learn_needs_it_no_more() -> None:
    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    assert version < weighted_binning.MENDED, "Remove mlops_assets/ml/weighted_binning.py: scikit-learn sorts once itself."
