"""The scikit-learn pipeline that a solution file names: building, fitting, predicting.

A pipeline has two steps: `features` (a ColumnTransformer over the columns of `matrix.to_frame`, by position) and
`estimator`. Everything random is seeded. Reading data, splitting it and evaluating the result belong elsewhere.

Encoders were compared on half a year of relational data (tested on the month after, gradient boosting): OrdinalEncoder scored
ROC AUC 0.730 and TargetEncoder 0.727. Both export to ONNX exactly. TargetEncoder of several classes does not export, and
neither does OrdinalEncoder with `min_frequency` or `max_categories`.
"""

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.ml.boosting_libraries import DEFAULTS, labels_for, library_of, parameter_names
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.schema.problem import Problem, check_problem

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

FEATURES_STEP = "features"
ESTIMATOR_STEP = "estimator"

_OF_THE_MACHINE = (MemoryError, OSError)
"""Errors that say nothing about the rows or the configuration."""

_TARGET_TYPES = {"binary_classification": "binary", "multiclass_classification": "multiclass", "regression": "continuous"}


class TrainingError(ValueError):
    """A pipeline that these rows, or this configuration, do not allow; the message names the class or the feature, and the remedy."""


@contextmanager
def explained(doing: str, remedy: str) -> Iterator[None]:
    """Raise TrainingError, "`doing`: the library's message. `remedy`", for whatever a library raises inside the block."""
    try:
        yield
    except (TrainingError, *_OF_THE_MACHINE):
        raise
    except Exception as error:  # the libraries behind an estimator share no class of errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(f"{doing}: {lines[0].rstrip('.')}. {remedy}") from error


def class_path(step: Any) -> str:
    """The import path of a step's class as a YAML file would name it: without the private modules in between."""
    kind = type(step)
    public = [part for part in kind.__module__.split(".") if not part.startswith("_")]
    return ".".join([*public[:2], kind.__name__])


@dataclass(frozen=True)
class Step:
    """A class to instantiate: its import path and its constructor's keyword arguments."""

    class_path: str
    parameters: Mapping[str, Any]

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Step":
        """Read `{"class": import path, "parameters": {...}}`. Raises ValueError naming a missing or an unknown field."""
        unknown = sorted(set(mapping) - {"class", "parameters"})
        if unknown or "class" not in mapping:
            raise ValueError(f"A step has the fields class and parameters; got {', '.join(map(str, mapping)) or 'none'}.")
        return cls(class_path=mapping["class"], parameters=dict(mapping.get("parameters") or {}))

    def build(self, problem: Problem, seed: int) -> Any:
        """The instance, with `random_state=seed` where the class has an unset one.

        A TargetEncoder is told the kind of target: left to guess, it takes whole-numbered values of a regression for
        classes. Raises ValueError on an unknown parameter.
        """
        instance_class = import_class(self.class_path)
        library = library_of(instance_class)
        allowed = sorted({*inspect.signature(instance_class).parameters, *(parameter_names(instance_class) if library else ())})
        for name in self.parameters:
            if name not in allowed:
                raise ValueError(f"{self.class_path} has no parameter {name!r}.{_nearest(name, allowed)}")
        with explained(f"{self.class_path} cannot be made", "Correct its parameters."):
            instance = instance_class(**{**(DEFAULTS[library] if library else {}), **self.parameters})
        if "random_state" not in self.parameters and instance.get_params(deep=False).get("random_state", seed) is None:
            instance.set_params(random_state=seed)
        if hasattr(instance, "target_type"):
            self._prepare_target_encoder(instance, problem, seed)
        return instance

    def _prepare_target_encoder(self, encoder: Any, problem: Problem, seed: int) -> None:
        if "target_type" not in self.parameters:
            encoder.set_params(target_type=_TARGET_TYPES[problem])
        if isinstance(encoder.cv, int):
            # Its own shuffling takes no seed any more, except inside a splitter.
            encoder.set_params(cv=_shuffled_folds(problem, encoder.cv, seed))


def import_class(path: str) -> type:
    """The estimator or transformer class at the import path `path`.

    Raises ValueError, with the nearest valid names, when it cannot be imported or is not a scikit-learn estimator.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"{path!r} is not an import path: write module.Class, such as sklearn.linear_model.Ridge.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{path!r} cannot be imported: {error}.{_nearest_module(module_name)}") from error
    found = getattr(module, name, None)
    estimators = [key for key, value in _public_members(module) if _is_estimator(value)]
    if found is None:
        raise ValueError(f"{module_name} has no class {name!r}.{_nearest(name, estimators)}")
    if not _is_estimator(found):
        raise ValueError(
            f"{path!r} is not an estimator: it needs fit, get_params and predict or transform.{_nearest(name, estimators)}"
        )
    return found


def build_pipeline(
    *,
    problem: Problem,
    schema: FeatureSchema,
    estimator: Step,
    numeric: Sequence[Step] | None,
    categorical: Sequence[Step] | None,
    seed: int,
) -> "Pipeline":
    """The unfitted pipeline.

    `numeric` and `categorical` are chains of transformers for those columns; an empty chain passes the columns through and
    None takes `default_preprocessing`. Raises ValueError when the estimator does not suit `problem` or there is no feature.
    """
    from sklearn.base import is_classifier, is_regressor
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    check_problem(problem)
    if not schema.names:
        raise ValueError("A model needs at least one feature.")
    model = estimator.build(problem, seed)
    suits = is_regressor(model) if problem == "regression" else is_classifier(model)
    if not suits:
        wanted = "regressor" if problem == "regression" else "classifier"
        raise ValueError(f"{estimator.class_path} is not a {wanted}, which {problem} needs.")
    default_numeric, default_categorical = default_preprocessing(problem, model, seed)
    chains = {
        "numeric": (default_numeric if numeric is None else [step.build(problem, seed) for step in numeric], schema.numeric),
        "categorical": (
            default_categorical if categorical is None else [step.build(problem, seed) for step in categorical],
            schema.categorical,
        ),
    }
    transformers, position = [], 0
    for name, (chain, columns) in chains.items():
        positions = list(range(position, position + len(columns)))
        position += len(columns)
        if columns:
            transformers.append((name, _chain(chain), positions))
    features = ColumnTransformer(transformers, verbose_feature_names_out=False)
    return Pipeline([(FEATURES_STEP, features), (ESTIMATOR_STEP, model)])


def default_preprocessing(problem: Problem, model: Any, seed: int) -> tuple[list[Any], list[Any]]:
    """The numeric and the categorical transformers that suit `model` when the solution names none.

    Trees split on codes: categories become ordinal codes, unknown ones -1. Histogram gradient boosting, LightGBM and XGBoost read NaN,
    so their numbers pass through; the other trees get imputed numbers (they read NaN too, but their export to ONNX does not), and
    unscaled ones (scaling in float32 moves values across thresholds). Any other model gets imputed and scaled numbers, and
    categories encoded by the mean of the target (one-hot for several classes).
    """
    from sklearn.ensemble import BaseEnsemble, HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
    from sklearn.tree import BaseDecisionTree

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    if isinstance(model, HistGradientBoostingClassifier | HistGradientBoostingRegressor) or library_of(model):
        return [], [codes]
    if isinstance(model, BaseEnsemble | BaseDecisionTree):
        return [imputer], [codes]
    scaled = [imputer, StandardScaler()]
    if problem == "multiclass_classification":
        return scaled, [OneHotEncoder(handle_unknown="ignore", sparse_output=False)]
    return scaled, [TargetEncoder(target_type=_TARGET_TYPES[problem], cv=_shuffled_folds(problem, 5, seed))]


def fit_pipeline(
    pipeline: "Pipeline", frame: "pd.DataFrame", labels: np.ndarray, weights: np.ndarray | None = None
) -> "Pipeline":
    """Fit `pipeline` on `frame` (from `matrix.to_frame`) and `labels` (from `problem.label_array`), and return it.

    `weights` of the rows, if any, go to the estimator; transformers do not read them.

    The encodings that a TargetEncoder learned are rounded to float32, because ONNX stores them so: without it a value
    next to a threshold would take another branch.

    Raises TrainingError when it cannot be fitted, naming the class, and features without any value.
    """
    from sklearn.preprocessing import TargetEncoder

    labels = labels_for(pipeline.named_steps[ESTIMATOR_STEP], labels)
    estimator = class_path(pipeline.named_steps[ESTIMATOR_STEP])
    with explained(*_fit_advice(estimator, frame)):
        pipeline.fit(frame, labels, **({} if weights is None else {f"{ESTIMATOR_STEP}__sample_weight": weights}))
    for step in fitted_steps(pipeline):
        if isinstance(step, TargetEncoder):
            step.encodings_ = [np.float64(np.float32(encoding)) for encoding in step.encodings_]
            step.target_mean_ = np.float64(np.float32(step.target_mean_))
    return pipeline


def predict(pipeline: "Pipeline", frame: "pd.DataFrame", problem: Problem) -> np.ndarray:
    """Probabilities [rows, classes] of a classifier, or values [rows] of a regressor. Raises TrainingError, naming the class."""
    doing = f"{class_path(pipeline.named_steps[ESTIMATOR_STEP])} does not predict"
    with explained(doing, "Correct training.estimator or training.preprocessing, or name another class."):
        return pipeline.predict(frame) if problem == "regression" else pipeline.predict_proba(frame)


def fitted_steps(pipeline: "Pipeline") -> Iterator[Any]:
    """Every transformer and estimator inside a fitted `pipeline`, whatever the nesting."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    for _, step in pipeline.steps:
        nested = [entry[1] for entry in step.transformers_] if isinstance(step, ColumnTransformer) else [step]
        for each in nested:
            if isinstance(each, Pipeline):
                yield from fitted_steps(each)
            elif not isinstance(each, str):
                yield each


def _fit_advice(estimator: str, frame: "pd.DataFrame") -> tuple[str, str]:
    """What cannot be done, and the remedy. Histogram gradient boosting speaks of the shape of a window where a feature has no value."""
    missing = frame.select_dtypes("number").isna().all()
    if missing.any():
        names = ", ".join(missing.index[missing])
        return (
            f"{estimator} cannot be fitted on {len(frame)} training rows in which {names} has no value",
            f"Leave {names} out of `features`, widen training.window or lower training.folds, or add an imputer to "
            "training.preprocessing.numeric.",
        )
    return (
        f"{estimator} cannot be fitted on {len(frame)} training rows",
        "Correct training.estimator, its parameters or training.preprocessing, or name another class.",
    )


def _shuffled_folds(problem: Problem, folds: int, seed: int) -> Any:
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = KFold if problem == "regression" else StratifiedKFold
    return splitter(n_splits=folds, shuffle=True, random_state=seed)


def _chain(steps: Sequence[Any]) -> Any:
    from sklearn.pipeline import make_pipeline

    if not steps:
        return "passthrough"
    return steps[0] if len(steps) == 1 else make_pipeline(*steps)


def _public_members(module: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(module, name, None)) for name in dir(module) if not name.startswith("_")]


def _is_estimator(value: Any) -> bool:
    return (
        inspect.isclass(value)
        and all(hasattr(value, method) for method in ("fit", "get_params"))
        and (hasattr(value, "predict") or hasattr(value, "transform"))
    )


def _nearest(name: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _nearest_module(name: str) -> str:
    import pkgutil

    parent_name, _, last = name.rpartition(".")
    if not parent_name:
        return _nearest(last, sorted(importlib.metadata.packages_distributions()))
    try:
        parent = importlib.import_module(parent_name)
    except ModuleNotFoundError:
        return _nearest_module(parent_name)
    return _nearest(last, [info.name for info in pkgutil.iter_modules(getattr(parent, "__path__", []))])
