"""Fits of a recalibration (`recalibration_methods.py`) on recent rows whose labels are known, which take seconds.

The model itself stays as it is.
"""

from collections.abc import Mapping

import numpy as np

from mlops_assets.ml.calibration import fit_curve
from mlops_assets.ml.recalibration_methods import METHODS, SMALLEST, Method, Recalibration, log_probabilities, softmax

__all__ = ["METHODS", "Method", "Recalibration", "fit_recalibration"]

_NOT_RISING = "The labels of the recent rows do not rise with the predictions: there is nothing to recalibrate by."


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

    logarithms, classes = log_probabilities(probabilities), probabilities.shape[1]
    truth = np.eye(classes)[labels.astype(int)]

    def expand(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if of_classes:
            return np.exp(parameters[:classes]), parameters[classes:]
        return np.full(classes, np.exp(parameters[0])), np.zeros(classes)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        factors, shifts = expand(parameters)
        scaled = softmax(logarithms * factors + shifts)
        excess = (scaled - truth) / len(labels)
        slope = (excess * logarithms).sum(axis=0) * factors
        gradient = np.concatenate([slope, excess.sum(axis=0)]) if of_classes else np.array([slope.sum()])
        penalty = 1 / len(labels)
        value = -np.log(np.clip((scaled * truth).sum(axis=1), SMALLEST, 1)).mean()
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
