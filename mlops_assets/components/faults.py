"""Faults of the files of a project: what is wrong, where, and what is allowed. All faults of a file are found, not the first alone."""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from yaml import MarkedYAMLError, YAMLError

from mlops_assets.components.field_faults import Fields
from mlops_assets.components.yaml_file import YamlFile
from mlops_assets.core.project import current_project, project_of_process
from mlops_assets.feature_store.model_problems import FeatureViewError, ModelProblem
from mlops_assets.schema.configuration_errors import ConfigurationError

MISTAKES = (ConfigurationError, ValidationError, MarkedYAMLError, UnicodeDecodeError, FeatureViewError)
"""Errors that a file of the project can cause and whose message names the remedy: their traceback tells nothing more."""

DEFINITIONS_FILE = "defs.yaml"

Severity = Literal["error", "warning"]

_ATTRIBUTES = "attributes"


@dataclass(frozen=True, order=True)
class Fault:
    """One fault: the file, its line (None: the whole file), the field by its keys with dots, and what is wrong with what is allowed.

    A `warning` is allowed and probably not meant; it stops nothing.
    """

    file: Path
    line: int | None
    field: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        project = project_of_process()
        inside = project is not None and self.file.is_relative_to(project.root)
        file = self.file.relative_to(project.root) if project and inside else self.file
        place = f"{file}:{self.line}" if self.line else str(file)
        return ": ".join(part for part in (place, self.field, self.message) if part)


class RepeatedKeysError(ConfigurationError):
    """A file gives keys twice; `keys` are their lines and names."""

    def __init__(self, keys: list[tuple[int, str]]):
        super().__init__((), ", ".join(name for _, name in keys))
        self.keys = keys


def require_single_keys(file: YamlFile) -> None:
    """Raise RepeatedKeysError when `file` gives a key twice: the first would silently not count."""
    if repeated := file.repeated_keys():
        raise RepeatedKeysError(repeated)


def explain(error: BaseException, folder: Path) -> list[Fault]:
    """Every fault behind a failed load of `folder`."""
    path = folder / DEFINITIONS_FILE
    for cause in causes(error):
        match cause:
            case RepeatedKeysError():
                message = "is given twice; keep one"
                return [Fault(path, line, name, message) for line, name in cause.keys]
            case ConfigurationError():
                return locate(path, cause.errors)
            case ValidationError():
                return _field_faults(YamlFile(path)) or [Fault(path, None, "", str(cause))]
            case MarkedYAMLError():
                # A bracket or a quote that is not closed is noticed far behind it.
                is_open = cause.context is not None and ("flow" in cause.context or "quoted" in cause.context)
                mark = (is_open and cause.context_mark) or cause.problem_mark
                message = ", ".join(filter(None, (cause.problem, cause.context)))
                return [Fault(path, mark.line + 1 if mark else None, "", message)]
            case UnicodeDecodeError():
                return [Fault(path, None, "", "is not UTF-8 text; save it in this encoding")]
            case FeatureViewError():
                return [model_fault(problem) for problem in cause.problems]
    return [Fault(path, None, "", str(list(causes(error))[-1]))]


def model_fault(problem: ModelProblem) -> Fault:
    """The fault of a dbt model, at the line of its field in the file that describes it."""
    path = current_project().dbt_project / problem.file
    if problem.line is not None or path.suffix != ".yml":
        return Fault(path, problem.line, problem.model, problem.message)
    field = ".".join(map(str, (problem.model, *problem.path)))
    try:
        # A model's `meta` is in its `config` or beside it.
        inner = ("config", *problem.path) if problem.path[:1] == ("meta",) else problem.path
        line: int | None = YamlFile(path).line(("models", problem.model, *inner))
    except (OSError, YAMLError):
        line = None
    return Fault(path, line, field, problem.message)


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised from, the first cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def locate(path: Path, errors: Iterable[ConfigurationError], severity: Severity = "error") -> list[Fault]:
    """The faults of a file with their lines, in their order."""
    file = YamlFile(path)
    return sorted(
        Fault(path, file.line((_ATTRIBUTES, *error.path)), ".".join(map(str, error.path)), error.message, severity)
        for error in errors
    )


def _field_faults(file: YamlFile) -> list[Fault]:
    """The faults of all documents: of their fields, and what the components find in what is left without them."""
    faults = []
    for document in file.documents:
        component = component_class(document)
        if component is None:
            continue
        fields = Fields(document.get(_ATTRIBUTES) or {}, component.get_model_cls())
        errors = [ConfigurationError(fault.path, fault.message) for fault in fields.faults]
        if fields.attributes is not None:
            errors += _further_errors(component(fields.attributes), fields)
        faults += locate(file.path, errors)
    return sorted(faults)


def _further_errors(component: Any, fields: Fields) -> list[ConfigurationError]:
    """What `component` finds beyond the fields that are wrong, which it has with other values or without."""
    try:
        component.check()
    except ConfigurationError as error:
        located = [ConfigurationError(fields.path_in_file(each.path), each.message) for each in error.errors]
        return [each for each in located if not fields.is_faulty(each.path)]
    return []


def component_class(document: Any) -> Any | None:
    """The component that a document names, if it is one of the platform."""
    name = document.get("type") if isinstance(document, dict) else None
    if not isinstance(name, str):
        return None
    module, _, attribute = name.rpartition(".")
    try:
        component = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return None
    model = component.get_model_cls() if hasattr(component, "get_model_cls") else None
    return component if isinstance(model, type) and issubclass(model, BaseModel) and hasattr(component, "check") else None
