"""The metrics of the platform: each public object is one, found under its name. A new metric is a function here and nothing elsewhere.

They are those of scikit-learn, and the expected calibration error: the mean over the rows of the distance between the mean probability and
the share of positives of their bin (`calibration_curve.py` names the papers). The bins stay those of the whole rows in a resample.
Names are looked up whenever definitions load: numpy is imported by the function that needs it.
"""

import sys
from typing import TYPE_CHECKING

from mlops_assets.schema.metric_names import metric
from mlops_assets.schema.problem import Problem

if TYPE_CHECKING:
    import numpy as np

    from mlops_assets.ml.weighted_metrics import Weighted, WeightedMetrics

_BINARY: tuple[Problem, ...] = ("binary_classification",)
_CLASSIFICATION: tuple[Problem, ...] = ("binary_classification", "multiclass_classification")
_REGRESSION: tuple[Problem, ...] = ("regression",)
_SMALLEST = sys.float_info.epsilon


@metric(problems=_CLASSIFICATION, greater_is_better=True, bounds=(0, 1), aspect="ranking")
def roc_auc(rows: "WeightedMetrics") -> "Weighted":
    """Area under the ROC curve; of several classes, the mean over those that the rows hold, each against the rest."""
    return rows.of_ranking("roc_auc")


@metric(problems=_BINARY, greater_is_better=True, bounds=(0, 1), aspect="ranking")
def average_precision(rows: "WeightedMetrics") -> "Weighted":
    """The sum over thresholds of precision times the step of recall."""
    return rows.of_ranking("average_precision")


@metric(problems=_CLASSIFICATION, greater_is_better=False, bounds=(0, None))
def log_loss(rows: "WeightedMetrics") -> "Weighted":
    """The mean of minus the logarithm of the probability of what happened."""
    import numpy as np

    if rows.problem == "binary_classification":
        likelihood = np.where(rows.labels == 1, rows.predictions, 1 - rows.predictions)
    else:
        shares = rows.predictions / rows.predictions.sum(axis=1, keepdims=True)
        likelihood = (shares * rows.truth).sum(axis=1)
    return rows.mean(-np.log(np.clip(likelihood, _SMALLEST, 1 - _SMALLEST)))


@metric(problems=_BINARY, greater_is_better=False, bounds=(0, 1))
def brier_score(rows: "WeightedMetrics") -> "Weighted":
    """The mean squared error of the probability."""
    return rows.mean((rows.predictions - rows.labels) ** 2)


@metric(problems=_BINARY, greater_is_better=False, biased_upwards=True, bounds=(0, 1), aspect="calibration", effect=0.02)
def expected_calibration_error(rows: "WeightedMetrics") -> "Weighted":
    """The distance of probabilities from shares of positives, from 0 (calibrated) to 1."""
    import numpy as np

    from mlops_assets.ml.calibration_curve import CALIBRATION_BINS, calibration_bins

    bins = calibration_bins(rows.predictions, CALIBRATION_BINS)
    of_bin = bins[:, None] == np.unique(bins)
    columns = np.column_stack([of_bin * (rows.predictions - rows.labels)[:, None], np.ones(len(bins))])
    return rows.of_sums(columns, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])


@metric(problems=_CLASSIFICATION, greater_is_better=True, bounds=(0, 1), aspect="decisions")
def accuracy(rows: "WeightedMetrics") -> "Weighted":
    """The share of rows that are predicted right."""
    return rows.mean(rows.is_right)


@metric(problems=_CLASSIFICATION, greater_is_better=True, bounds=(0, 1), aspect="decisions")
def balanced_accuracy(rows: "WeightedMetrics") -> "Weighted":
    """The mean over the classes of the share of their rows that are predicted right. Two classes must both be there."""
    import numpy as np

    def mean_over_classes(sums: "np.ndarray") -> "np.ndarray":
        of_class, hits = np.split(sums, 2, axis=1)
        shares = hits / of_class
        if rows.problem == "binary_classification":
            return shares.mean(axis=1)
        present = of_class > 0
        return np.where(present, shares, 0.0).sum(axis=1) / present.sum(axis=1)

    return rows.of_sums(np.column_stack([rows.truth, rows.truth * rows.is_right[:, None]]), mean_over_classes)


@metric(problems=_BINARY, greater_is_better=True, bounds=(0, 1), aspect="decisions")
def precision(rows: "WeightedMetrics") -> "Weighted":
    """The share of positives among the rows that are predicted positive."""
    return rows.ratio(rows.decisions * rows.labels, rows.decisions)


@metric(problems=_BINARY, greater_is_better=True, bounds=(0, 1), aspect="decisions")
def recall(rows: "WeightedMetrics") -> "Weighted":
    """The share of rows that are predicted positive among the positives."""
    return rows.ratio(rows.decisions * rows.labels, rows.labels)


@metric(problems=_BINARY, greater_is_better=True, bounds=(0, 1), aspect="decisions")
def f1(rows: "WeightedMetrics") -> "Weighted":
    """The harmonic mean of precision and recall."""
    return rows.ratio(2.0 * rows.decisions * rows.labels, rows.decisions + rows.labels)


@metric(problems=_REGRESSION, greater_is_better=False, constant="median", bounds=(0, None))
def mean_absolute_error(rows: "WeightedMetrics") -> "Weighted":
    """The mean distance of a prediction from its label."""
    import numpy as np

    return rows.mean(np.abs(rows.predictions - rows.labels))


@metric(problems=_REGRESSION, greater_is_better=False, bounds=(0, None))
def root_mean_squared_error(rows: "WeightedMetrics") -> "Weighted":
    """The root of the mean squared error."""
    import numpy as np

    squared = (rows.predictions - rows.labels) ** 2
    return rows.of_sums(np.column_stack([squared, np.ones(len(squared))]), lambda sums: np.sqrt(sums[:, 0] / sums[:, 1]))


@metric(problems=_REGRESSION, greater_is_better=True, bounds=(None, 1))
def r2(rows: "WeightedMetrics") -> "Weighted":
    """The share of the labels' variation that the predictions explain."""
    import numpy as np

    # Moved to their mean first, so that the variance does not drown in the rounding of large squares.
    centred = rows.labels - rows.labels.mean()
    columns = np.column_stack([np.ones(len(centred)), (rows.predictions - rows.labels) ** 2, centred, centred**2])

    def explained(sums: "np.ndarray") -> "np.ndarray":
        total, squared, first, second = sums.T
        variation = second - first**2 / total
        return np.where(variation > 1e-12 * second, 1 - squared / variation, np.nan)

    return rows.of_sums(columns, explained)
