"""The forms of a recalibration: what each makes of extreme predictions."""

import numpy as np
import pytest

from mlops_assets.ml.recalibration_methods import Method, Recalibration


@pytest.mark.parametrize("slope", [0.1, 1.0, 300.0])
def test_extreme_scores_stay_probabilities_in_their_order(slope: float) -> None:
    scores = np.array([0.0, 1e-30, 1e-7, 0.5, 1 - 1e-7, 1.0])
    bent = Recalibration("sigmoid", {"slope": slope, "intercept": 2.0}).apply(scores)
    assert ((bent >= 0) & (bent <= 1)).all()
    assert (np.diff(bent) >= 0).all()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("sigmoid", {"slope": 1.0, "intercept": 0.0}),
        ("isotonic", {"scores": [0.0, 1.0], "probabilities": [0.0, 1.0]}),
        ("linear", {"factor": 1.0, "shift": 0.0}),
    ],
)
def test_parameters_that_change_nothing_change_nothing(method: Method, parameters: dict[str, float | list[float]]) -> None:
    predictions = np.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(Recalibration(method, parameters).apply(predictions), predictions, rtol=1e-12)


def test_a_class_without_probability_gets_a_finite_share() -> None:
    bent = Recalibration("temperature", {"factors": [0.5] * 3, "shifts": [0.0] * 3}).apply(np.array([[1.0, 0.0, 0.0]]))
    assert np.isfinite(bent).all()
    assert bent.argmax() == 0
