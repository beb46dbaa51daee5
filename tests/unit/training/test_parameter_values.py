"""Values of parameters are checked by the constraints of their class, each by itself."""

from typing import Any

import pytest

from mlops_assets.schema.training_section import Training
from mlops_assets.training.parameter_values import find_wrong_values

FOREST = "sklearn.ensemble.HistGradientBoostingClassifier"
LOGISTIC = "sklearn.linear_model.LogisticRegression"


def training(parameters: dict[str, Any], **fields: Any) -> Training:
    estimator = {"type": FOREST, "parameters": parameters}
    return Training.model_validate({"window": "60d", "holdout": "7d", "metric": "roc_auc", "estimator": estimator, **fields})


def test_values_that_the_class_takes_are_right() -> None:
    space = {"C": {"low": 0.1, "high": 10}, "solver": {"choices": ["lbfgs", "saga"]}}
    search = {"trials": 3, "candidates": [{"type": LOGISTIC, "parameters": {"max_iter": 300}, "space": space}]}
    assert list(find_wrong_values(training({"max_iter": 50, "learning_rate": 0.1}, search=search))) == []


def test_every_wrong_value_is_found() -> None:
    space = {"C": {"low": -1, "high": 1}, "solver": {"choices": ["lbfgs", "adam"]}}
    search = {"trials": 3, "candidates": [{"type": LOGISTIC, "space": space}]}
    steps = {"numeric": [{"type": "sklearn.preprocessing.StandardScaler", "parameters": {"with_mean": 3}}]}
    found = find_wrong_values(training({"max_iter": -5, "learning_rate": "fast"}, search=search, preprocessing=steps))
    messages = {error.path[1:]: error.message for error in found}
    assert "must be an int in the range [1" in messages["estimator", "parameters", "max_iter"]
    assert "must be a float" in messages["estimator", "parameters", "learning_rate"]
    assert "Got -1" in messages["search", "candidates", 0, "space", "C"]
    assert "Got 'adam'" in messages["search", "candidates", 0, "space", "solver"]
    assert "must be an instance of 'bool'" in messages["preprocessing", "numeric", 0, "parameters", "with_mean"]
    assert len(messages) == 5


@pytest.mark.parametrize("import_path", ["collections.OrderedDict", "datetime.date"])
def test_a_class_without_constraints_takes_what_its_constructor_takes(import_path: str) -> None:
    found = list(
        find_wrong_values(training({}, estimator={"type": import_path, "parameters": {"year": 0, "month": 1, "day": 1}}))
    )
    assert len(found) == (3 if import_path == "datetime.date" else 0)
