"""A YAML file as text: the line of each field, and keys that it gives twice, of which YAML would silently keep the last."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.schema.yaml_loader import ProjectConstructor

Keys = Sequence[str | int]


class YamlFile:
    """One file. Raises yaml.MarkedYAMLError when it is no YAML, and UnicodeDecodeError when it is no text."""

    def __init__(self, path: Path):
        self.path = path
        self._nodes = list(yaml.compose_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))

    @cached_property
    def documents(self) -> list[Any]:
        """Their content."""
        constructor = ProjectConstructor()
        return [None if node is None else constructor.construct_document(node) for node in self._nodes]

    @property
    def lines(self) -> list[int]:
        """The line at which each of them begins."""
        return [node.start_mark.line + 1 for node in self._nodes]

    def line(self, keys: Keys) -> int:
        """The line of the field that `keys` lead to, in the document that has most of them; of a field that is missing, that around it.

        Keys that are in no document, such as the name of a kind, are passed over. An entry of a list is named by its position or its `name`.
        """
        reached = [_follow(node, keys) for node in self._nodes if node is not None]
        return max(reached, key=lambda place: place[0], default=(0, 1))[1]

    def repeated_keys(self) -> list[tuple[int, str]]:
        """Line and name of each key that its mapping has already."""
        return [place for node in self._nodes if node is not None for place in _repeated(node)]


def _follow(node: yaml.Node, keys: Keys) -> tuple[int, int]:
    """How many of `keys` lead from `node` to a field, and its line."""
    depth, line = 0, node.start_mark.line + 1
    for key in keys:
        inner = _inner(node, key)
        if inner is not None:
            (line, node), depth = inner, depth + 1
    return depth, line


def _inner(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        # The last one of two is the one that counts.
        for name, value in reversed(node.value):
            if str(name.value) == str(key):
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and str(key).isdigit() and int(key) < len(node.value):
        value = node.value[int(key)]
        return value.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode):
        # An entry of a list may have a name: the models and columns of dbt.
        for value in node.value:
            named = _inner(value, "name") if isinstance(value, yaml.MappingNode) else None
            if named is not None and named[1].value == key:
                return value.start_mark.line + 1, value
    return None


def _repeated(node: yaml.Node) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for name, value in node.value:
            if str(name.value) in known and name.value != "<<":
                yield name.start_mark.line + 1, str(name.value)
            known.add(str(name.value))
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)
