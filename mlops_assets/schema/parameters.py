"""Parameters that a YAML file gives to a piece of a team: the keyword-only arguments of its function, checked by name and type."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mlops_assets.schema.configuration_errors import ErrorCollector, nearest


def check_parameters(function: Callable[..., Any], parameters: Mapping[str, Any], path: tuple[str | int, ...], name: str) -> None:
    """Raise ConfigurationError below `path` for a parameter that `function` lacks or needs, or whose value is of another type.

    `name` is what the YAML file calls the function.
    """
    known, errors = keyword_parameters(function), ErrorCollector()
    for parameter, value in parameters.items():
        if parameter not in known:
            errors.add((*path, parameter), f"{name} has no parameter {parameter!r}; {nearest(parameter, list(known))}")
        elif problem := _type_problem(known[parameter].annotation, value):
            errors.add((*path, parameter), problem)
    if missing := [key for key, each in known.items() if each.default is each.empty and key not in parameters]:
        errors.add(path, f"{name} needs the parameter {', '.join(missing)}")
    errors.raise_errors()


def keyword_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of `function` by name."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return {name: each for name, each in parameters.items() if each.kind == each.KEYWORD_ONLY}


def _type_problem(annotation: Any, value: Any) -> str | None:
    """Why `value` is not what `annotation` states, or None."""
    if annotation is inspect.Parameter.empty:
        return None
    try:
        TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return None
