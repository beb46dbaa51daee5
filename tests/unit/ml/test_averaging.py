"""The average of fits on several histories: of probabilities or values, without those that cannot be fitted."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from mlops_assets.ml.averaging import fit_average

FEATURES = np.random.default_rng(0).normal(size=(400, 2))
OLD = np.arange(400) < 200
EVERYTHING, RECENT = np.ones(400), np.where(OLD, 0.0, 1.0)


def test_probabilities_are_averaged_and_the_likeliest_class_is_predicted() -> None:
    labels = np.where((FEATURES[:, 0] > 0) == OLD, "late", "early")
    average = fit_average(LogisticRegression(), FEATURES, labels, [EVERYTHING, RECENT])
    parts = [LogisticRegression().fit(FEATURES, labels), LogisticRegression().fit(FEATURES[~OLD], labels[~OLD])]
    expected = np.mean([part.predict_proba(FEATURES) for part in parts], axis=0)
    assert average.predict_proba(FEATURES) == pytest.approx(expected)
    assert (average.predict(FEATURES) == average.classes_[expected.argmax(axis=1)]).all()
    # Half of the rows changed: the recent ones are what the average leans to.
    assert (average.predict(FEATURES[~OLD]) == labels[~OLD]).mean() > 0.9


def test_values_are_averaged_and_rows_weigh_as_their_history_has_it() -> None:
    labels = FEATURES[:, 0] * np.where(OLD, -1, 1)
    weights = 0.5 ** (np.arange(400)[::-1] / 100)
    average = fit_average(LinearRegression(), FEATURES, labels, [RECENT, weights])
    parts = [LinearRegression().fit(FEATURES[~OLD], labels[~OLD]), LinearRegression().fit(FEATURES, labels, weights)]
    assert average.predict(FEATURES) == pytest.approx(np.mean([part.predict(FEATURES) for part in parts], axis=0))


def test_a_history_that_lacks_a_class_is_left_out() -> None:
    average = fit_average(LogisticRegression(), FEATURES, OLD.astype(int), [EVERYTHING, RECENT])
    assert isinstance(average, LogisticRegression)
    assert fit_average(LogisticRegression(), FEATURES, OLD.astype(int), [RECENT]) is None
