"""A classifier behind its calibration curve."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from mlops_assets.ml.calibration import fit_curve
from mlops_assets.ml.estimators.calibrated import CalibratedClassifier

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(2000, 2))
Y = np.where(RANDOM.random(2000) < 1 / (1 + np.exp(-3 * X[:, 0])), "yes", "no")


@pytest.fixture(scope="module")
def calibrated() -> CalibratedClassifier:
    # Too sure of itself by far.
    estimator = LogisticRegression().fit(X, Y)
    estimator.coef_ = estimator.coef_ * 5
    curve = fit_curve("isotonic", estimator.predict_proba(X)[:, 1], (Y == "yes").astype(np.int64))
    return CalibratedClassifier(estimator, curve)


def test_probabilities_are_bent_to_the_observed_shares_and_sum_to_one(calibrated: CalibratedClassifier) -> None:
    bent, raw = calibrated.predict_proba(X), calibrated.estimator.predict_proba(X)[:, 1]
    assert bent.dtype == np.float32
    assert np.allclose(bent.sum(axis=1), 1, atol=1e-6)
    assert ((bent >= 0) & (bent <= 1)).all()
    labels = Y == "yes"
    assert np.mean((bent[:, 1] - labels) ** 2) < np.mean((raw - labels) ** 2) - 0.01
    # The order of the rows by their score is that of the estimator.
    assert (np.diff(bent[np.argsort(raw, kind="stable"), 1]) >= 0).all()


def test_it_predicts_the_more_probable_class(calibrated: CalibratedClassifier) -> None:
    assert set(calibrated.predict(X)) == {"yes", "no"}
    assert ((calibrated.predict(X) == "yes") == (calibrated.predict_proba(X)[:, 1] > 0.5)).all()


def test_scikit_learn_takes_it_as_fitted_and_clones_it(calibrated: CalibratedClassifier) -> None:
    check_is_fitted(calibrated)
    copied = clone(CalibratedClassifier(LogisticRegression(), calibrated.curve)).curve
    assert copied.keys() == calibrated.curve.keys()
    assert all(np.array_equal(copied[name], calibrated.curve[name]) for name in copied)
    again = CalibratedClassifier(LogisticRegression(), calibrated.curve).fit(X, Y)
    assert again.classes_.tolist() == ["no", "yes"]
