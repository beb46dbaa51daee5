"""Names of the metrics of each problem, and which way is better. Imports nothing heavy: YAML files are validated with it."""

from collections.abc import Mapping

from mlops_assets.schema.problem import Problem

_GREATER_IS_BETTER: Mapping[str, bool] = {
    "roc_auc": True,
    "average_precision": True,
    "log_loss": False,
    "brier_score": False,
    "expected_calibration_error": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "mean_absolute_error": False,
    "root_mean_squared_error": False,
    "r2": True,
}
_BY_PROBLEM: Mapping[Problem, tuple[str, ...]] = {
    "binary_classification": (
        "roc_auc",
        "average_precision",
        "log_loss",
        "brier_score",
        "expected_calibration_error",
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
    ),
    "multiclass_classification": ("roc_auc", "log_loss", "accuracy", "balanced_accuracy"),
    "regression": ("mean_absolute_error", "root_mean_squared_error", "r2"),
}


def metric_names(problem: Problem) -> tuple[str, ...]:
    """The metrics computed for `problem`."""
    return _BY_PROBLEM[problem]


def greater_is_better(metric: str) -> bool:
    """Whether a higher value of `metric` is better. Raises ValueError, with the names, on an unknown metric."""
    if metric not in _GREATER_IS_BETTER:
        raise ValueError(f"Unknown metric {metric!r}: use {', '.join(_GREATER_IS_BETTER)}.")
    return _GREATER_IS_BETTER[metric]
