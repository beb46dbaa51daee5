"""Recalibration of a model in service: its predictions bent by few parameters, fitted on recent rows whose labels are known.

Binary: a curve from score to probability, a sigmoid or isotonic (`calibration.py`). Several classes: one temperature, or a factor and
a shift of each class's log-probability (Guo and others, "On Calibration of Modern Neural Networks", ICML 2017). Regression: a line.
The parameters are plain numbers, which JSON holds. The model itself stays as it is: this takes seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlops_assets.ml.calibration import fit_curve
from mlops_assets.schema.problem import Problem

Method = Literal["sigmoid", "isotonic", "temperature", "vector", "linear"]

METHODS: Mapping[Problem, tuple[Method, ...]] = {
    "binary_classification": ("sigmoid", "isotonic"),
    "multiclass_classification": ("temperature", "vector"),
    "regression": ("linear",),
}
"""The methods of each kind of problem; the first is the one with the fewest parameters."""

_NOT_RISING = "The labels of the recent rows do not rise with the predictions: there is nothing to recalibrate by."
_SMALLEST = 1e-6


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
                clipped = np.clip(predictions, _SMALLEST, 1 - _SMALLEST)
                odds = np.log(clipped / (1 - clipped)) * values["slope"] + values["intercept"]
                return np.exp(-np.logaddexp(0.0, -odds))
            case "isotonic":
                return np.interp(predictions, values["scores"], values["probabilities"])
            case "temperature" | "vector":
                return _softmax(_logarithms(predictions) * np.asarray(values["factors"]) + np.asarray(values["shifts"]))
            case "linear":
                return predictions * values["factor"] + values["shift"]


def fit_recalibration(method: Method, predictions: np.ndarray, labels: np.ndarray) -> Recalibration:
    """Fit `method` on the `predictions` of rows with known `labels` (of several classes: their positions).

    Raises ValueError when the labels do not rise with the predictions, or are all of one class: a curve cannot mend that.
    """
    match method:
        case "sigmoid" | "isotonic":
            if len(np.unique(labels)) < 2:
                raise ValueError("The labels of the recent rows are all the same: there is nothing to recalibrate by.")
            try:
                curve = fit_curve(method, predictions, labels)
            except ValueError as error:
                raise ValueError(_NOT_RISING) from error
            return Recalibration(method, {name: np.asarray(value, dtype=float).tolist() for name, value in curve.items()})
        case "temperature" | "vector":
            return Recalibration(method, _fit_scaling(predictions, labels, of_classes=method == "vector"))
        case "linear":
            factor, shift = _fit_line(predictions, labels)
            return Recalibration(method, {"factor": factor, "shift": shift})


def _fit_scaling(probabilities: np.ndarray, labels: np.ndarray, *, of_classes: bool) -> Mapping[str, list[float]]:
    """Minimise the log loss over one factor, or over a factor and a shift of each class, with a slight pull to no change."""
    from scipy.optimize import minimize

    logarithms, classes = _logarithms(probabilities), probabilities.shape[1]
    truth = np.eye(classes)[labels.astype(int)]

    def expand(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if of_classes:
            return np.exp(parameters[:classes]), parameters[classes:]
        return np.full(classes, np.exp(parameters[0])), np.zeros(classes)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        factors, shifts = expand(parameters)
        scaled = _softmax(logarithms * factors + shifts)
        excess = (scaled - truth) / len(labels)
        slope = (excess * logarithms).sum(axis=0) * factors
        gradient = np.concatenate([slope, excess.sum(axis=0)]) if of_classes else np.array([slope.sum()])
        penalty = 1 / len(labels)
        value = -np.log(np.clip((scaled * truth).sum(axis=1), _SMALLEST, 1)).mean()
        return float(value + penalty * parameters @ parameters), gradient + 2 * penalty * parameters

    fitted = minimize(loss, np.zeros(2 * classes if of_classes else 1), jac=True, method="L-BFGS-B")
    factors, shifts = expand(fitted.x)
    return {"factors": factors.tolist(), "shifts": shifts.tolist()}


def _fit_line(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    predictions, labels = predictions.astype(float), labels.astype(float)
    variation = np.var(predictions)
    if not variation:
        return 1.0, float(labels.mean() - predictions.mean())
    factor = float(np.mean((predictions - predictions.mean()) * (labels - labels.mean())) / variation)
    if factor <= 0:
        raise ValueError(_NOT_RISING)
    return factor, float(labels.mean() - factor * predictions.mean())


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities.astype(float), _SMALLEST, 1))


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
