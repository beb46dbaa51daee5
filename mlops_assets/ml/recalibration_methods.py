"""Recalibration of a model in service: its predictions bent by few parameters, fitted on recent rows whose labels are known.

Binary: a curve from score to probability, a sigmoid or isotonic (`calibration.py`). Several classes: one temperature, or a factor and
a shift of each class's log-probability (Guo and others, "On Calibration of Modern Neural Networks", ICML 2017). Regression: a line.
The parameters are plain numbers, which JSON holds. Fitting belongs to `recalibration.py`: who applies one needs no scikit-learn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlops_assets.schema.problem import Problem

Method = Literal["sigmoid", "isotonic", "temperature", "vector", "linear"]

METHODS: Mapping[Problem, tuple[Method, ...]] = {
    "binary_classification": ("sigmoid", "isotonic"),
    "multiclass_classification": ("temperature", "vector"),
    "regression": ("linear",),
}
"""The methods of each kind of problem; the first is the one with the fewest parameters."""

FEWEST_ROWS = 200
"""Fewer rows with labels leave a recalibration to chance."""

RECALIBRATION_WINDOWS = 8
"""It is fitted on the rows of so many newest windows: of a decision, of the version that follows it, and of a policy that is compared."""

SMALLEST = 1e-6
"""Probabilities are at least so large before their logarithm is taken."""


@dataclass(frozen=True)
class Recalibration:
    """A method and its parameters: numbers, or lists of numbers."""

    method: Method
    parameters: Mapping[str, float | Sequence[float]]

    def apply(self, predictions: np.ndarray) -> np.ndarray:
        """Return the recalibrated `predictions`, float64: scores [rows], probabilities [rows, classes] or values [rows].

        A row's result does not depend on the rows beside it.
        """
        values: Mapping[str, Any] = self.parameters
        predictions = predictions.astype(float)
        match self.method:
            case "sigmoid":
                clipped = np.clip(predictions, SMALLEST, 1 - SMALLEST)
                odds = np.log(clipped / (1 - clipped)) * values["slope"] + values["intercept"]
                return np.exp(-np.logaddexp(0.0, -odds))
            case "isotonic":
                return np.interp(predictions, values["scores"], values["probabilities"])
            case "temperature" | "vector":
                return softmax(log_probabilities(predictions) * np.asarray(values["factors"]) + np.asarray(values["shifts"]))
            case "linear":
                return predictions * values["factor"] + values["shift"]


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities, none of them infinite."""
    return np.log(np.clip(probabilities.astype(float), SMALLEST, 1))


def softmax(values: np.ndarray) -> np.ndarray:
    """Return the probabilities of each row of logarithms."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
