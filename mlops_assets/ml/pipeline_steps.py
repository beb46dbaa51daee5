"""The estimators and transformers of a pipeline: imported by path, built with their parameters, explained when they fail."""

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlops_assets.ml.boosting_libraries import DEFAULTS, library_of, parameter_names
from mlops_assets.schema.problem import Problem

_MACHINE_ERRORS = (MemoryError, OSError)
"""Errors that say nothing about the rows or the configuration."""

TARGET_TYPES = {"binary_classification": "binary", "multiclass_classification": "multiclass", "regression": "continuous"}


class TrainingError(ValueError):
    """A pipeline that these rows, or this configuration, do not allow; the message names the class or the feature, and the remedy."""


@contextmanager
def explained(doing: str, remedy: str) -> Iterator[None]:
    """Raise TrainingError, "`doing`: the library's message. `remedy`", for whatever a library raises inside the block."""
    try:
        yield
    except (TrainingError, *_MACHINE_ERRORS):
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
class PipelineStep:
    """A class to instantiate: its import path and its constructor's keyword arguments."""

    class_path: str
    parameters: Mapping[str, Any]

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "PipelineStep":
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
            encoder.set_params(target_type=TARGET_TYPES[problem])
        if isinstance(encoder.cv, int):
            # Its own shuffling takes no seed any more, except inside a splitter.
            encoder.set_params(cv=shuffled_folds(problem, encoder.cv, seed))


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
    estimator_class = getattr(module, name, None)
    estimators = [key for key, value in _public_members(module) if _is_estimator(value)]
    if estimator_class is None:
        raise ValueError(f"{module_name} has no class {name!r}.{_nearest(name, estimators)}")
    if not _is_estimator(estimator_class):
        raise ValueError(
            f"{path!r} is not an estimator: it needs fit, get_params and predict or transform.{_nearest(name, estimators)}"
        )
    return estimator_class


def shuffled_folds(problem: Problem, folds: int, seed: int) -> Any:
    """A seeded splitter into `folds`: stratified by class for a classification."""
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = KFold if problem == "regression" else StratifiedKFold
    return splitter(n_splits=folds, shuffle=True, random_state=seed)


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
