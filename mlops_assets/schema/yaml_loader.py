"""The loader of a project's YAML files: PyYAML's safe one, which tells the place of a value that is none, such as the thirteenth month."""

from collections.abc import Callable
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

_SCALARS = ("timestamp", "int", "float")


class ProjectConstructor(SafeConstructor):
    """Makes the values of nodes. Raises yaml.MarkedYAMLError for a date, a time or a number that is none."""


class ProjectLoader(yaml.CSafeLoader):
    """Reads a file. Raises yaml.MarkedYAMLError for a date, a time or a number that is none."""


def _located(construct: Callable[[Any, yaml.ScalarNode], Any]) -> Callable[[Any, yaml.ScalarNode], Any]:
    def construct_located(constructor: SafeConstructor, node: yaml.ScalarNode) -> Any:
        try:
            return construct(constructor, node)
        except ValueError as error:
            raise ConstructorError(
                None, None, f"{error}; correct it, or put it in quotes if it is text", node.start_mark
            ) from error

    return construct_located


for _name in _SCALARS:
    _tag = f"tag:yaml.org,2002:{_name}"
    for _class in (ProjectConstructor, ProjectLoader):
        _class.add_constructor(_tag, _located(SafeConstructor.yaml_constructors[_tag]))


def read_yaml(text: str) -> Any:
    """The one document in `text`. Raises yaml.YAMLError where it is none."""
    return yaml.load(text, Loader=ProjectLoader)  # noqa: S506 - a safe loader
