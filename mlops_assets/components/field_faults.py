"""Faults of the fields of a component's attributes, and the attributes as they are without them, so that further checks have an object.

A field that is misspelled is taken for the nearest one, a wrong value is left out. What was read so is only checked, never run.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mlops_assets.schema.configuration_errors import nearest, nearest_name

_MOST_ROUNDS = 8
"""A wrong value may hide others, such as two bounds that are compared when both are numbers."""

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class FieldFault:
    """A wrong field: the keys below `attributes`, and what is wrong."""

    path: Path
    message: str


class Fields:
    """The attributes of one component: `faults` of their fields, and in `attributes` what is left; None when too much is missing."""

    def __init__(self, values: Mapping[str, Any], model: type[BaseModel]):
        self._values: Any = deepcopy(dict(values))
        self._model = model
        self._dropped: list[tuple[Path, int]] = []
        self._removed: list[Path] = []
        self._renamed: dict[Path, str] = {}
        self._misspelled: set[Path] = set()
        self.faults: list[FieldFault] = []
        self.attributes: BaseModel | None = None
        for _ in range(_MOST_ROUNDS):
            try:
                self.attributes = model.model_validate(self._values)
                return
            except ValidationError as error:
                if not self._repair_all(error.errors()):
                    return

    def path_in_file(self, path: Path) -> Path:
        """The keys in the file of what `path` names in the attributes that are left: some were misspelled, entries of lists dropped."""
        for outer, position in reversed(self._dropped):
            if path[: len(outer)] == outer and len(path) > len(outer) and int(path[len(outer)]) >= position:
                path = (*outer, int(path[len(outer)]) + 1, *path[len(outer) + 1 :])
        return tuple(self._renamed.get(path[: depth + 1], key) for depth, key in enumerate(path))

    def is_faulty(self, path: Path) -> bool:
        """Whether the field at `path` is wrong, or one around it that is not only misspelled."""
        return any(
            path == fault.path or (path[: len(fault.path)] == fault.path and fault.path not in self._misspelled)
            for fault in self.faults
        )

    def _repair_all(self, problems: list[Any]) -> bool:
        """Note the problems and take them out; returns whether anything changed."""
        # Misspelled fields first: the field that one stands for is not missing.
        unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        repaired = False
        for problem in reversed(unknown or problems):  # from the end, so that positions in lists stay true
            location = tuple(problem["loc"])
            path = self.path_in_file(location)
            # What is wrong around a value that was taken out may be so without it alone.
            if not self.is_faulty(path) and not any(removed[: len(path)] == path for removed in self._removed):
                self.faults.append(FieldFault(path, self._message(problem)))
            repaired = self._repair(problem) or repaired
        return repaired

    def _message(self, problem: Any) -> str:
        match problem["type"]:
            case "extra_forbidden":
                allowed = allowed_fields(self._model, problem["loc"])
                return f"unknown field; {nearest(str(problem['loc'][-1]), allowed)}" if allowed else "unknown field"
            case "missing":
                return "this field is required"
            case "literal_error":
                return (
                    f"{problem['input']!r} is no value of it; {nearest(str(problem['input']), _literals(problem), quoted=True)}"
                )
            case _:
                return problem["msg"].removeprefix("Value error, ")

    def _repair(self, problem: Any) -> bool:
        keys = _present(self._values, problem["loc"])
        if not keys or problem["type"] == "missing":
            return False
        *outer, last = keys
        place = self._values
        for key in outer:
            place = place[key]
        path = self.path_in_file(tuple(keys))
        if meant := problem.get("ctx", {}).get("meant"):
            place[last] = meant
            return True
        value = place.pop(last)
        if isinstance(place, list):
            self._removed.append(path)
            self._dropped.append((tuple(outer), int(last)))
        elif problem["type"] == "literal_error" and (meant := nearest_name(str(value), _literals(problem))):
            place[last] = meant
        elif problem["type"] == "extra_forbidden":
            meant = nearest_name(str(last), allowed_fields(self._model, problem["loc"]))
            if meant and meant not in place:
                place[meant] = value
                self._renamed[*outer, meant] = str(last)
                self._misspelled.add(path)
        else:
            self._removed.append(path)
        return True


def allowed_fields(model: type[BaseModel], location: Path) -> list[str]:
    """Fields of the mapping that holds the last key of `location`; none where it holds any name."""
    annotation: Any = model
    for key in location[:-1]:
        annotation = _inner(annotation, key)
    models = [each for each in _alternatives(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    return list(models[0].model_fields) if models else []


def _inner(annotation: Any, key: str | int) -> Any:
    """The annotation of a field, of the values of a mapping or of the entries of a list; that of the name of an alternative is itself."""
    for alternative in _alternatives(annotation):
        if isinstance(alternative, type) and issubclass(alternative, BaseModel):
            if key in alternative.model_fields:
                return alternative.model_fields[str(key)].annotation
        elif get_origin(alternative) in (dict, list):
            return get_args(alternative)[-1]
    return annotation


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation


def _literals(problem: Any) -> list[str]:
    return re.findall(r"'([^']*)'", problem["ctx"]["expected"])


def _present(values: Any, location: Path) -> list[str | int]:
    """The keys of `location` that are in `values`: without names of alternatives, and of what is missing."""
    keys: list[str | int] = []
    for key in location:
        known: Any = values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
        if key in known:
            values = values[key]
            keys.append(key)
    return keys
