"""LightGBM and XGBoost, optional packages: which parameters they take, which labels they are fitted on, and their export to ONNX.

scikit-learn's own gradient boosting needs none of this. Nothing is imported before an estimator of these libraries is used.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # Chosen by a measurement of time, the layout of the histograms would change their sums from fit to fit.
    "lightgbm": {"n_jobs": 1, "verbose": -1, "deterministic": True, "force_col_wise": True},
    "xgboost": {"n_jobs": 1},
}
"""Parameters of estimators whose configuration has none of the name: equal rows give equal models, and threads wait for nobody."""

_THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)
_CLASSIFIER_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "raw_scores": [True, False]}


def library_of(step: Any) -> str | None:
    """`lightgbm` or `xgboost` when the class of the estimator `step`, or the step itself as a class, comes from there; else None."""
    package = (step if inspect.isclass(step) else type(step)).__module__.split(".")[0]
    return package if package in DEFAULTS else None


def parameter_names(kind: type) -> set[str]:
    """The parameters that an estimator class of these libraries takes beyond those of its constructor's signature."""
    names = set(kind().get_params())
    if library_of(kind) == "lightgbm":
        from lightgbm.basic import _ConfigAliases

        for aliases in _ConfigAliases._get_all_param_aliases().values():
            names |= set(aliases)
    return names


def labels_for(estimator: Any, labels: np.ndarray) -> np.ndarray:
    """The labels that `estimator` is fitted on: a classifier of XGBoost takes the positions of the sorted classes and nothing else."""
    from sklearn.base import is_classifier

    if library_of(estimator) == "xgboost" and is_classifier(estimator):
        return np.unique(labels, return_inverse=True)[1]
    return labels


def register_converters(steps: Iterable[Any]) -> None:
    """Let skl2onnx convert those of `steps` that are of these libraries."""
    libraries = {library_of(step) for step in steps}
    if "lightgbm" in libraries:
        _register_lightgbm()
    if "xgboost" in libraries:
        _register_xgboost()


def lower_thresholds(step: Any) -> None:
    """Round the thresholds of a fitted LightGBM `step` down to float32, in place, as ONNX stores them (see `ml/onnx.py`).

    XGBoost compares float32 numbers with float32 thresholds: nothing is to be done.
    """
    if library_of(step) != "lightgbm":
        return
    from lightgbm import Booster

    # The text of the model; without the lengths of its trees, which become others, it is read line by line.
    text = _SIZES.sub("", step.booster_.model_to_string())
    step._Booster = Booster(model_str=_THRESHOLDS.sub(_lowered, text))


def _lowered(line: re.Match[str]) -> str:
    exact = np.array(line[1].split(), dtype=np.float64)
    return f"threshold={' '.join(f'{value:.17g}' for value in floor32(exact))}"


def floor32(exact: np.ndarray) -> np.ndarray:
    """The greatest float32 numbers that are not above the float64 numbers `exact`."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    too_high = rounded.astype(np.float64) > exact
    rounded[too_high] = np.nextafter(rounded[too_high], np.float32(-np.inf))
    return rounded


def _register_lightgbm() -> None:
    from lightgbm import LGBMClassifier, LGBMRegressor
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    update_registered_converter(
        LGBMClassifier,
        "LightGbmLGBMClassifier",
        calculate_linear_classifier_output_shapes,
        convert_lightgbm,
        options=_CLASSIFIER_OPTIONS,
    )
    update_registered_converter(
        LGBMRegressor,
        "LightGbmLGBMRegressor",
        calculate_linear_regressor_output_shapes,
        convert_lightgbm,
        options={"split": None},
    )


def _register_xgboost() -> None:
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )
    from xgboost import XGBClassifier, XGBRegressor

    update_registered_converter(
        XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        convert_xgboost,
        options=_CLASSIFIER_OPTIONS,
    )
    update_registered_converter(XGBRegressor, "XGBoostXGBRegressor", calculate_linear_regressor_output_shapes, convert_xgboost)
