"""The metrics of the three problems: those of scikit-learn, and the expected calibration error.

What they are computed on belongs elsewhere. The expected calibration error follows Naeini, Cooper and Hauskrecht,
"Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015), with bins of equal frequency as in Nguyen and
O'Connor, "Posterior calibration and exploratory analysis for natural language processing models" (EMNLP 2015): the mean
over the rows of the distance between a bin's mean probability and its share of positives.
"""

from dataclasses import dataclass

import numpy as np

from mlops_assets.schema.problem import Problem

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin of a calibration curve: mean probability, share of positives, rows."""

    mean_probability: float
    positive_share: float
    rows: int


def compute_metrics(
    problem: Problem, labels: np.ndarray, predictions: np.ndarray, classes: tuple[int | str, ...], threshold: float
) -> dict[str, float | None]:
    """The metrics of `problem`.

    `labels` [rows] come from `problem.label_array`; `predictions` are the probabilities of the second class [rows] (binary),
    probabilities [rows, classes] in the order of `classes`, or values [rows]. `threshold` is the binary decision threshold.
    A metric that these rows do not define (a ranking with one class present, r2 of one row) is None.
    """
    if problem == "binary_classification":
        return _binary(labels, np.asarray(predictions, dtype=np.float64), threshold)
    if problem == "multiclass_classification":
        return _multiclass(labels, np.asarray(predictions, dtype=np.float64), classes)
    return _regression(labels, np.asarray(predictions, dtype=np.float64))


def calibration_curve(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> tuple[CalibrationPoint, ...]:
    """The calibration curve of binary `labels` in at most `bins` bins of equal frequency; equal probabilities share a bin."""
    positions = calibration_bins(probabilities, bins)
    rows = np.bincount(positions)
    scores = np.bincount(positions, weights=probabilities)
    positives = np.bincount(positions, weights=labels)
    return tuple(
        CalibrationPoint(mean_probability=float(score / count), positive_share=float(positive / count), rows=int(count))
        for score, positive, count in zip(scores, positives, rows, strict=True)
        if count
    )


def calibration_bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each row, from 0: at most `bins` bins of equal frequency; equal probabilities share a bin."""
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)))
    return np.searchsorted(edges[1:-1], probabilities, side="left")


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The expected calibration error over `CALIBRATION_BINS` bins of equal frequency, from 0 (calibrated) to 1."""
    points = calibration_curve(labels, probabilities, CALIBRATION_BINS)
    return sum(point.rows * abs(point.mean_probability - point.positive_share) for point in points) / len(labels)


def _binary(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, float | None]:
    from sklearn import metrics

    decided = (probabilities >= threshold).astype(np.int64)
    both = 0 < labels.sum() < len(labels)
    return {
        "roc_auc": float(metrics.roc_auc_score(labels, probabilities)) if both else None,
        "average_precision": float(metrics.average_precision_score(labels, probabilities)) if both else None,
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=[0, 1])),
        "brier_score": float(np.mean((probabilities - labels) ** 2)),
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
        "accuracy": float(np.mean(decided == labels)),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(labels, decided)) if both else None,
        "precision": float(metrics.precision_score(labels, decided)) if decided.any() else None,
        "recall": float(metrics.recall_score(labels, decided)) if labels.any() else None,
        "f1": float(metrics.f1_score(labels, decided)) if decided.any() or labels.any() else None,
    }


def _multiclass(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[int | str, ...]) -> dict[str, float | None]:
    from sklearn import metrics

    codes = {value: position for position, value in enumerate(classes)}
    unknown = sorted({str(label) for label in labels.tolist() if label not in codes})
    if unknown:
        raise ValueError(f"The model knows no class {', '.join(unknown[:5])}: train it on data that holds every class.")
    truth = np.array([codes[label] for label in labels.tolist()], dtype=np.int64)
    decided = probabilities.argmax(axis=1)
    # One class against the rest, averaged over the classes that these rows hold.
    areas = [
        metrics.roc_auc_score(truth == code, probabilities[:, code])
        for code in range(len(classes))
        if 0 < (truth == code).sum() < len(truth)
    ]
    return {
        "roc_auc": float(np.mean(areas)) if areas else None,
        "log_loss": float(metrics.log_loss(truth, probabilities, labels=list(range(len(classes))))),
        "accuracy": float(np.mean(decided == truth)),
        "balanced_accuracy": float(np.mean([np.mean(decided[truth == code] == code) for code in np.unique(truth)])),
    }


def _regression(labels: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
    from sklearn import metrics

    return {
        "mean_absolute_error": float(np.mean(np.abs(values - labels))),
        "root_mean_squared_error": float(np.sqrt(np.mean((values - labels) ** 2))),
        "r2": float(metrics.r2_score(labels, values)) if len(labels) > 1 and np.ptp(labels) > 0 else None,
    }
