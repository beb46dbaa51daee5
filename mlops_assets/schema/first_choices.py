"""The metric and the estimator that a new solution begins with."""

from dataclasses import dataclass, field
from typing import Any

from mlops_assets.schema.problem import Problem

_METRICS: dict[Problem, str] = {
    "binary_classification": "roc_auc",
    "multiclass_classification": "log_loss",
    "regression": "mean_absolute_error",
}
_FEW_ROWS = 1_000


@dataclass(frozen=True)
class FirstChoices:
    """A metric, and the class of an estimator with its parameters."""

    metric: str
    estimator: str
    parameters: dict[str, Any] = field(default_factory=dict)


def first_choices(problem: Problem, rows: int | None = None) -> FirstChoices:
    """What suits `problem`: gradient boosting, whose leaves have 20 rows, or a linear model of few `rows`."""
    metric = _METRICS[problem]
    if rows is not None and rows < _FEW_ROWS:
        if problem == "regression":
            return FirstChoices(metric, "sklearn.linear_model.Ridge")
        return FirstChoices(metric, "sklearn.linear_model.LogisticRegression", {"max_iter": 1000})
    kind = "Regressor" if problem == "regression" else "Classifier"
    return FirstChoices(metric, f"sklearn.ensemble.HistGradientBoosting{kind}")
