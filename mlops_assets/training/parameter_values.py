"""Values of the parameters of estimators and preprocessing steps, as scikit-learn's own constraints have them.

The classes are imported for it, which takes seconds: it is part of `mlops check` and no part of loading definitions.
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.training_section import Candidate, Space, Step, Training

Path = tuple[str | int, ...]

_NAMED = re.compile(r"^The '[^']+' parameter of \S+ (.+)$", re.DOTALL)
"""What scikit-learn says of a value."""


def find_wrong_values(training: Training) -> Iterator[ConfigurationError]:
    """The parameters that their class would refuse when it is fitted, those of a search at the ends of their range and at each choice."""
    yield from _step(training.estimator, ("training", "estimator"))
    for number, candidate in enumerate(training.search.candidates if training.search else []):
        yield from _candidate(candidate, ("training", "search", "candidates", number))
    for kind, steps in (("numeric", training.preprocessing.numeric), ("categorical", training.preprocessing.categorical)):
        for number, step in enumerate(steps or []):
            yield from _step(step, ("training", "preprocessing", kind, number))


def _candidate(candidate: Candidate, path: Path) -> Iterator[ConfigurationError]:
    yield from _step(candidate, path)
    for name, space in candidate.space.items():
        problems = (_problem(candidate.type, candidate.parameters, name, value) for value in _values(space))
        if problem := next(filter(None, problems), None):
            yield ConfigurationError((*path, "space", name), problem)


def _step(step: Step, path: Path) -> Iterator[ConfigurationError]:
    for name, value in step.parameters.items():
        if problem := _problem(step.type, step.parameters, name, value):
            yield ConfigurationError((*path, "parameters", name), problem)


def _values(space: Space) -> list[Any]:
    return space.choices if space.choices is not None else [space.low, space.high]


def _problem(import_path: str, parameters: Mapping[str, Any], name: str, value: Any) -> str | None:
    """Return the reason why the class `import_path`, made with `parameters`, refuses `value` as the parameter `name`; None when it takes it."""
    module, _, attribute = import_path.rpartition(".")
    try:
        step = getattr(importlib.import_module(module), attribute)(**{**parameters, name: value})
        constraints = getattr(step, "_parameter_constraints", {}).get(name)
        if constraints is None:
            return None
        from sklearn.utils._param_validation import validate_parameter_constraints

        validate_parameter_constraints({name: constraints}, {name: value}, caller_name=attribute)
    except Exception as error:  # whatever the package of a team raises
        named = _NAMED.match(str(error))
        return named.group(1) if named else f"{import_path} does not take {value!r}: {type(error).__name__}: {error}"
    return None
