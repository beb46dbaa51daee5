"""The training section beyond its schema: what an estimator admits, overrides for one run, and the hash that identifies it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import ValidationError

from mlops_assets.schema.configuration_errors import (
    ConfigurationError,
    ErrorCollector,
    base_classes,
    check_import_path,
    imported_names,
    method_parameters,
    nearest,
)
from mlops_assets.schema.duration import maximum_days
from mlops_assets.schema.metric_names import check_metric
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.training_section import Step, ThresholdRule, Training, TrainingHistory

_OF_THE_DATASET = ("window", "holdout", "holdout_share", "earlier_rows", "sample_weight")
_CONVERTERS = "skl2onnx._supported_operators"
_WITHOUT_CONVERTER = ("catboost",)
_EXTRAS = {"lightgbm": {"lightgbm": (4, 6), "onnxmltools": (1, 16)}, "xgboost": {"xgboost": (3, 0), "onnxmltools": (1, 16)}}
"""Libraries of estimators -> the packages of the extra of that name, with the first versions that work with this scikit-learn."""
_DISTRIBUTIONS = {"xgboost": ("xgboost-cpu", "xgboost")}
_ONE_HOT, _TARGET = "sklearn.preprocessing.OneHotEncoder", "sklearn.preprocessing.TargetEncoder"
_INFREQUENT = ("min_frequency", "max_categories")
_KINDS = {
    "ClassifierMixin": "classifier",
    "RegressorMixin": "regressor",
    "ClusterMixin": "clustering",
    "TransformerMixin": "transformer",
}
"""Base classes of scikit-learn that tell what an estimator is for."""
_BOOSTING = ("lightgbm", "xgboost", "catboost")
_SUFFIXES = {"Classifier": "ClassifierMixin", "Regressor": "RegressorMixin"}
"""How the libraries of boosting, whose base classes depend on what is installed, call their estimators."""
_BUDGET = {"trials", "seconds"}
_NEEDED = "which serving.engine: process needs; leave the engine out to serve it by workers"


def check_training(solution: Solution) -> None:
    """Check classes, their parameters and the options that not every problem or estimator has. Raises ConfigurationError."""
    training, errors = solution.training, ErrorCollector()
    with errors.collect():
        check_metric(training.metric, solution.problem, ("training", "metric"))
    _check_problem(solution, errors)
    weighted_by = [name for name in ("sample_weight", "class_weight") if getattr(training, name) is not None]
    if any(history.half_life is not None for history in training.histories or ()):
        weighted_by.append("the half_life of histories")
    _check_histories(solution, errors)
    needs_onnx = solution.serving.engine == "process"
    candidates = training.search.candidates if training.search else []
    estimators: list[tuple[Step, tuple[str | int, ...], list[str]]] = [(training.estimator, ("training", "estimator"), [])]
    estimators += [
        (candidate, ("training", "search", "candidates", number), list(candidate.space))
        for number, candidate in enumerate(candidates)
    ]
    for step, path, searched in estimators:
        with errors.collect():
            _check_estimator(step, path, searched, problem=solution.problem, weighted_by=weighted_by, needs_onnx=needs_onnx)
    for kind in ("numeric", "categorical"):
        steps: list[Step] | None = getattr(training.preprocessing, kind)
        for number, step in enumerate(steps or []):
            path = ("training", "preprocessing", kind, number)
            with errors.collect():
                _check_step(step, path, [], needs_onnx=needs_onnx)
            with errors.collect():
                _check_encoder(step, path, solution.problem, needs_onnx=needs_onnx)
    errors.raise_errors()


def override_training(solution: Solution, overrides: Mapping[str, Any]) -> Solution:
    """`solution` with fields of its training section changed: dotted names such as `training.search.trials` -> values.

    Raises ConfigurationError, as a YAML file with these values would, and for a field that decides more than the model.
    """
    attributes = solution.model_dump(mode="python", exclude_unset=True)
    for name, value in overrides.items():
        keys = tuple(int(part) if part.isdigit() else part for part in name.split("."))
        if len(keys) < 2 or keys[0] != "training":
            raise ConfigurationError(keys, "only fields of the training section can be overridden, such as training.seed")
        if keys[1] in _OF_THE_DATASET:
            raise ConfigurationError(keys, "decides the dataset, not only the model: change it in the YAML file")
        _set(attributes, keys, value)
    try:
        changed = Solution.model_validate(attributes)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = list(Training.model_fields) if len(first["loc"]) == 2 else []
            message = f"unknown field; {nearest(str(first['loc'][-1]), known)}" if known else "unknown field"
        raise ConfigurationError(tuple(first["loc"]), message) from error
    check_training(changed)
    return changed


def configuration_hash(
    solution: Solution, *, features: Sequence[str], view_versions: Mapping[str, int], segment: str | None, with_budget: bool
) -> str:
    """16 hexadecimal digits of all that decides a model besides its data: training section, features, view versions, segment, packages.

    Without the budget (`with_budget` false) it identifies a search, which a larger budget continues.
    """
    search = solution.training.effective_search
    training = solution.training.model_dump(mode="json", exclude={"search"}) | {"refit": solution.refits}
    if search:
        training["search"] = search.model_dump(mode="json", exclude=set() if with_budget else _BUDGET)
    estimators = [solution.training.estimator, *(search.candidates if search else [])]
    libraries = sorted({each.type.split(".")[0] for each in estimators} & set(_EXTRAS))
    packages = ["scikit-learn", "skl2onnx", *(["optuna"] if search else []), *libraries, *(["onnxmltools"] if libraries else [])]
    content: dict[str, Any] = {
        "training": training,
        "problem": solution.problem,
        "features": list(features),
        "views": dict(view_versions),
        "packages": {name: _version(name) for name in packages},
    }
    if segment is not None:
        content["segment"] = segment
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def needs_folds(training: Training) -> bool:
    """Whether the final model needs out-of-fold predictions, for its calibration or its threshold."""
    return training.calibration is not None or isinstance(training.decision_threshold, ThresholdRule)


def _check_problem(solution: Solution, errors: ErrorCollector) -> None:
    training, problem = solution.training, solution.problem
    binary_only = {
        "calibration": training.calibration is not None,
        # A number that is written into the file has no effect elsewhere, either.
        "decision_threshold": "decision_threshold" in training.model_fields_set,
    }
    for field, given in binary_only.items():
        if given and problem != "binary_classification":
            errors.add(("training", field), f"belongs to binary_classification; leave it out for {problem}")
    if training.class_weight is not None and problem == "regression":
        errors.add(("training", "class_weight"), "a regression has no classes; leave it out")


def _check_histories(solution: Solution, errors: ErrorCollector) -> None:
    training = solution.training
    histories = training.histories or []
    if histories and not solution.spine.has_time:
        errors.add(("training", "histories"), "a table without time has no history; leave it out")
    for number, history in enumerate(histories):
        path = ("training", "histories", number)
        if history in histories[:number]:
            errors.add(path, "the same history is there already; a model is fitted on each")
        if history.span and training.window and maximum_days(history.span) > maximum_days(training.window):
            errors.add(
                (*path, "span"), "longer than training.window, whose rows it has; shorten it, or leave it out for all rows"
            )
    if training.earlier_rows and histories and TrainingHistory() not in histories:
        message = "none of training.histories reads rows from before the window; add an empty one, {}, or leave earlier_rows out"
        errors.add(("training", "earlier_rows"), message)


def _check_estimator(
    step: Step,
    path: tuple[str | int, ...],
    searched: Sequence[str],
    *,
    problem: str,
    weighted_by: Sequence[str],
    needs_onnx: bool,
) -> None:
    errors = ErrorCollector()
    with errors.collect():
        _check_step(step, path, searched, needs_onnx=needs_onnx)
    kinds = base_classes(step.type) & _KINDS.keys() or {
        kind for suffix, kind in _SUFFIXES.items() if step.type.split(".")[0] in _BOOSTING and step.type.endswith(suffix)
    }
    needed = "RegressorMixin" if problem == "regression" else "ClassifierMixin"
    if kinds and needed not in kinds:
        kind = _KINDS[sorted(kinds)[0]]
        errors.add((*path, "type"), f"{step.type} is a {kind}; {problem} needs a {_KINDS[needed]}")
    fitted_with = method_parameters(step.type, "fit")
    if weighted_by and fitted_with is not None and "sample_weight" not in fitted_with:
        errors.add((*path, "type"), f"{step.type} takes no weights; leave out {' and '.join(weighted_by)}")
    errors.raise_errors()


def _check_step(step: Step, path: tuple[str | int, ...], searched: Sequence[str], *, needs_onnx: bool) -> None:
    """The class exists, takes the parameters, and can serve by the engine that the file names."""
    errors = ErrorCollector()
    with errors.collect():
        _check_extra(step, path)
        check_import_path(step.type, (*path, "type"))
    package, name = step.type.split(".")[0], step.type.split(".")[-1]
    # skl2onnx lists what it converts; a package of the project's own may register more when it is imported.
    converted = imported_names(_CONVERTERS, "sklearn") if package == "sklearn" else None
    if errors.is_empty and needs_onnx and (package in _WITHOUT_CONVERTER or (converted is not None and name not in converted)):
        message = (
            f"{step.type} has no ONNX converter here, {_NEEDED}, or name another class, such as "
            "sklearn.ensemble.HistGradientBoostingClassifier or HistGradientBoostingRegressor"
        )
        errors.add((*path, "type"), message)
    allowed = method_parameters(step.type, "__init__")
    for field, names in (("parameters", step.parameters), ("space", searched)):
        for name in names:
            if allowed is not None and name not in allowed:
                errors.add((*path, field, name), f"{step.type} has no parameter {name!r}; {nearest(name, allowed)}")
    errors.raise_errors()


def _check_extra(step: Step, path: tuple[str | int, ...]) -> None:
    """The packages that the estimators of a library need beside it are installed, in versions that work."""
    extra = step.type.split(".")[0]
    for package, least in _EXTRAS.get(extra, {}).items():
        installed = _version(package)
        if installed is None:
            problem = f"needs the package {package}, which is not installed"
        elif tuple(map(int, installed.split(".")[:2])) < least:
            problem = f"needs {package} {'.'.join(map(str, least))} or later; {installed} is installed"
        else:
            continue
        raise ConfigurationError((*path, "type"), f"{step.type} {problem}: pip install 'mlops-assets[{extra}]'")


def _version(package: str) -> str | None:
    """The version of an installed package, None when it is not installed."""
    for name in _DISTRIBUTIONS.get(package, (package,)):
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def _check_encoder(step: Step, path: tuple[str | int, ...], problem: str, *, needs_onnx: bool) -> None:
    """Parameters of encoders that cannot answer for new categories, or whose export does not exist."""
    if step.type == _ONE_HOT:
        if step.parameters.get("handle_unknown", "error") not in ("ignore", *(() if needs_onnx else ("infrequent_if_exist",))):
            raise ConfigurationError(
                (*path, "parameters"),
                f"{step.type} serves with `handle_unknown: ignore` alone: a category that training did not see would have no prediction",
            )
        for name in _INFREQUENT:
            if needs_onnx and step.parameters.get(name) is not None:
                raise ConfigurationError((*path, "parameters", name), f"{step.type} with {name} has no ONNX converter, {_NEEDED}")
    if needs_onnx and step.type == _TARGET and problem == "multiclass_classification":
        raise ConfigurationError(
            (*path, "type"),
            f"{step.type} of several classes has no ONNX converter, {_NEEDED}, or use OrdinalEncoder or OneHotEncoder",
        )


def _set(attributes: dict[str, Any], keys: tuple[str | int, ...], value: Any) -> None:
    place: Any = attributes
    for depth, key in enumerate(keys[:-1]):
        if isinstance(place, list):
            if not isinstance(key, int) or key >= len(place):
                raise ConfigurationError(keys[: depth + 1], f"there is no such entry; the list has {len(place)}")
            place = place[key]
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise ConfigurationError(keys[: depth + 1], f"is {place!r}, which has no fields")
    if isinstance(place, list) and (not isinstance(keys[-1], int) or keys[-1] >= len(place)):
        raise ConfigurationError(keys, f"there is no such entry; the list has {len(place)}")
    place[keys[-1]] = value
