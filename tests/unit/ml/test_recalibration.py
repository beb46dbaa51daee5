"""Recalibration: what it gains on other rows of the same world, that it ranks as before, and that JSON holds it."""

import json

import numpy as np
import pytest

from mlops_assets.ml.recalibration import METHODS, Method, Recalibration, fit_recalibration
from mlops_assets.schema.problem import Problem

ROWS = 6000


def distorted(problem: Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are wrong in level and spread, and the labels."""
    random = np.random.default_rng(seed)
    if problem == "regression":
        truth = random.normal(0, 10, ROWS)
        return 0.5 * truth + 20, truth + random.normal(0, 2, ROWS)
    if problem == "binary_classification":
        odds = random.normal(-1, 1.5, ROWS)
        return 1 / (1 + np.exp(-(2 * odds + 1.5))), (random.random(ROWS) < 1 / (1 + np.exp(-odds))).astype(int)
    odds = random.normal(0, 1.5, (ROWS, 3))
    shares = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    labels = (shares.cumsum(axis=1) < random.random((ROWS, 1))).sum(axis=1).clip(0, 2)
    sharper = np.exp(2.5 * odds)
    return sharper / sharper.sum(axis=1, keepdims=True), labels


def loss(problem: Problem, predictions: np.ndarray, labels: np.ndarray) -> float:
    if problem == "regression":
        return float(np.mean((predictions - labels) ** 2))
    happened = (
        np.where(labels == 1, predictions, 1 - predictions)
        if predictions.ndim == 1
        else predictions[np.arange(len(labels)), labels]
    )
    return float(-np.log(np.clip(happened, 1e-9, 1)).mean())


@pytest.mark.parametrize(("problem", "method"), [(problem, method) for problem in METHODS for method in METHODS[problem]])
def test_other_rows_lose_less(problem: Problem, method: Method):
    fitted = fit_recalibration(method, *distorted(problem, seed=1))
    predictions, labels = distorted(problem, seed=2)
    assert loss(problem, fitted.apply(predictions), labels) < 0.97 * loss(problem, predictions, labels)


@pytest.mark.parametrize(("problem", "method"), [(problem, method) for problem in METHODS for method in METHODS[problem]])
def test_json_holds_the_parameters(problem: Problem, method: Method):
    predictions, labels = distorted(problem, seed=1)
    fitted = fit_recalibration(method, predictions, labels)
    read = Recalibration(fitted.method, json.loads(json.dumps(dict(fitted.parameters))))
    np.testing.assert_array_equal(read.apply(predictions), fitted.apply(predictions))


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "linear"])
def test_rows_stay_ranked(method: Method):
    predictions, labels = distorted("regression" if method == "linear" else "binary_classification", seed=1)
    bent = fit_recalibration(method, predictions, labels).apply(predictions)
    assert (np.diff(bent[np.argsort(predictions)]) >= 0).all()


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "linear"])
def test_predictions_that_rank_the_wrong_way_are_refused(method: Method):
    predictions, labels = distorted("regression" if method == "linear" else "binary_classification", seed=1)
    with pytest.raises(ValueError, match="do not rise"):
        fit_recalibration(method, predictions, -labels if method == "linear" else 1 - labels)


def test_labels_of_one_class_are_refused():
    with pytest.raises(ValueError, match="all the same"):
        fit_recalibration("sigmoid", np.linspace(0.1, 0.9, 50), np.zeros(50))


def test_a_constant_prediction_is_shifted():
    assert fit_recalibration("linear", np.full(10, 3.0), np.full(10, 5.0)).apply(np.full(2, 3.0)).tolist() == [5.0, 5.0]


def test_a_class_that_was_not_seen_keeps_a_probability():
    predictions, labels = distorted("multiclass_classification", seed=1)
    kept = labels != 2
    bent = fit_recalibration("vector", predictions[kept], labels[kept]).apply(predictions)
    assert np.isfinite(bent).all()
    np.testing.assert_allclose(bent.sum(axis=1), 1)
