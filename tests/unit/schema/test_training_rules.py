import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.core.project import current_project
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Serving, Solution
from mlops_assets.schema.training_rules import configuration_hash, override_training
from mlops_assets.schema.training_section import Search

ONE_HOT = {"type": "sklearn.preprocessing.OneHotEncoder"}
FILE = current_project().root / "mlops_assets" / "defs" / "flight_delay" / "defs.yaml"


@pytest.fixture(scope="module")
def solution() -> Solution:
    return Solution.model_validate(yaml.safe_load(FILE.read_text())["attributes"])


def identity(solution: Solution, *, with_budget: bool = True) -> str:
    return configuration_hash(solution, features=["a"], view_versions={"v": 1}, segment=None, with_budget=with_budget)


def test_any_field_of_the_training_section_can_be_overridden(solution: Solution) -> None:
    changed = override_training(
        solution,
        {
            "training.estimator.parameters.max_iter": 300,
            "training.search.trials": 7,
            "training.search.candidates.1.space.C.high": 2.0,
            "training.decision_threshold": {"maximize": "f1"},
            "training.calibration": "sigmoid",
        },
    )
    assert changed.training.estimator.parameters == {**solution.training.estimator.parameters, "max_iter": 300}
    assert isinstance(changed.training.search, Search)
    assert changed.training.search.trials == 7
    assert changed.training.search.candidates[1].space["C"].high == 2.0
    assert changed.training.calibration == "sigmoid"
    assert changed.gates == solution.gates
    # The one that was read from the file is as it was.
    assert solution.training.estimator.parameters["max_iter"] == 150


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.estimator.parameters.max_itr", 3, "has no parameter 'max_itr'; did you mean max_iter"),
        ("training.estimator.type", "sklearn.ensemble.Forest", "sklearn.ensemble has no 'Forest'"),
        ("training.estimator.type", "lightgbm.LGBMClasifier", "lightgbm has no 'LGBMClasifier'; did you mean LGBMClassifier"),
        ("training.estimator.type", "xgboost.XGBClasifier", "xgboost has no 'XGBClasifier'; did you mean XGBClassifier"),
        (
            "training.preprocessing.categorical",
            [ONE_HOT],
            "training.preprocessing.categorical.0.parameters: .* `handle_unknown: ignore`",
        ),
        (
            "training.preprocessing.numeric",
            [{"type": "sklearn.impute.SimpleImputer", "parameters": {"strateg": "mean"}}],
            "training.preprocessing.numeric.0.parameters.strateg: .* did you mean strategy",
        ),
        ("training.metric", "r2", "'r2' is no metric of binary_classification"),
        ("training.serach.trials", 3, "training.serach: unknown field; did you mean search"),
        ("training.search.trails", 3, "training.search.trails: unknown field"),
        ("training.search.trials", "many", "training.search.trials: Input should be a valid integer"),
        ("training.search.trials", -1, "greater than or equal to 0"),
        ("training.search.candidates.5.type", "a.B", "training.search.candidates.5: there is no such entry; the list has 2"),
        ("training.metric.name", 1, "training.metric: is 'roc_auc', which has no fields"),
        ("training.window", "90d", "training.window: decides the dataset"),
        ("gates.floor.roc_auc", 0.1, "only fields of the training section can be overridden"),
        ("training", {}, "only fields of the training section can be overridden"),
        ("training.decision_threshold", 1.5, "less than or equal to 1"),
    ],
)
def test_an_override_is_checked_like_the_file(solution: Solution, name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        override_training(solution, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.estimator.type", "sklearn.semi_supervised.LabelPropagation", "LabelPropagation has no ONNX converter here"),
        (
            "training.preprocessing.categorical",
            [ONE_HOT | {"parameters": {"handle_unknown": "infrequent_if_exist"}}],
            "a category that training did not see would have no prediction",
        ),
        (
            "training.preprocessing.categorical",
            [ONE_HOT | {"parameters": {"handle_unknown": "ignore", "min_frequency": 5}}],
            "with min_frequency has no ONNX converter",
        ),
    ],
)
def test_what_has_no_onnx_form_is_refused_for_the_engine_process_alone(
    solution: Solution, name: str, value: Any, message: str
) -> None:
    in_process = solution.model_copy(update={"serving": Serving(engine="process")})
    with pytest.raises(ConfigurationError, match=message):
        override_training(in_process, {name: value, "training.search": None, "training.estimator.parameters": {}})
    override_training(solution, {name: value, "training.search": None, "training.estimator.parameters": {}})


def test_an_override_beside_a_set_seed(solution: Solution) -> None:
    assert override_training(solution, {"training.seed": 3}).training.seed == 3


def test_a_search_without_trials_changes_no_identity(solution: Solution) -> None:
    without = solution.model_copy(update={"training": solution.training.model_copy(update={"search": None})})
    assert identity(without) == identity(solution)
    searched = override_training(solution, {"training.search.trials": 5})
    assert identity(searched) != identity(solution)


def test_only_the_budget_may_change_while_a_search_continues(solution: Solution) -> None:
    five, ten = (override_training(solution, {"training.search.trials": trials}) for trials in (5, 10))
    assert identity(five) != identity(ten)
    assert identity(five, with_budget=False) == identity(ten, with_budget=False)
    other = override_training(solution, {"training.search.trials": 5, "training.folds": 4})
    assert identity(five, with_budget=False) != identity(other, with_budget=False)


@pytest.mark.parametrize("library", ["lightgbm.LGBMClassifier", "xgboost.XGBClassifier"])
def test_a_library_of_an_extra_is_no_other_package_in_the_identity(solution: Solution, library: str) -> None:
    changed = override_training(solution, {"training.estimator": {"type": library, "parameters": {"n_estimators": 20}}})
    assert identity(changed) != identity(solution)


def test_without_the_extra_of_an_estimator_the_error_names_it(tmp_path: Path) -> None:
    """An environment that lacks one package: links to all others."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("onnxmltools"):
            (tmp_path / entry.name).symlink_to(entry)
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(current_project().root)!r}]
import yaml
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.training_rules import override_training
solution = Solution.model_validate(yaml.safe_load(open({str(FILE)!r}))["attributes"])
override_training(solution, {{"training.estimator": {{"type": "lightgbm.LGBMClassifier"}}}})
"""
    ran = subprocess.run([sys.executable, "-S", "-I", "-c", program], capture_output=True, text=True)
    assert ran.stderr.rstrip().endswith(
        "training.estimator.type: lightgbm.LGBMClassifier needs the package onnxmltools, which is not installed: "
        "pip install 'mlops-assets[lightgbm]'"
    )
