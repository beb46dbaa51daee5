"""Registries: the pieces of one kind (metrics, gates, readers, ...) that a YAML file may name, the platform's and a team's alike.

A piece is found under one of three names: its attribute in the module of the built-in pieces, the name of an entry point of the registry's
group in an installed package, or an import path `package.module:attribute`. Nothing is imported before a piece is asked for.
"""

import importlib
import importlib.metadata
from functools import cached_property
from typing import Any, Generic, TypeVar

from mlops_assets.schema.configuration_errors import ConfigurationError, nearest

Piece = TypeVar("Piece")


class Registry(Generic[Piece]):
    """The pieces of one kind: those of the module `builtin`, of the entry points of `group`, and those that an import path names.

    `protocol` is a `runtime_checkable` protocol: what lacks one of its members is refused by name.
    """

    def __init__(self, kind: str, *, group: str, builtin: str, protocol: type[Piece]):
        self.kind = kind
        self.group = group
        self.builtin = builtin
        self.protocol = protocol

    def names(self) -> tuple[str, ...]:
        """The names of the built-in and the installed pieces. Those of import paths are not known before they are used."""
        return (*self._own, *(name for name in self._entry_points if name not in self._own))

    def get(self, name: str) -> Piece:
        """The piece `name`. Raises ValueError that states what is wrong, with the nearest names."""
        if name in self._own:
            return self._own[name]
        if name not in self._entry_points and ":" not in name:
            raise ValueError(f"Unknown {self.kind} {name!r}: {nearest(name, list(self.names()))}")
        if name not in self._loaded:
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def check(self, name: str, path: tuple[str | int, ...]) -> Piece:
        """The piece `name` of a YAML file. Raises ConfigurationError at `path`."""
        try:
            return self.get(name)
        except ValueError as error:
            raise ConfigurationError(path, str(error)) from error

    def is_own(self, name: str) -> bool:
        """Whether the piece belongs to the platform."""
        return name in self._own

    def _import(self, name: str) -> Piece:
        import_path = self._entry_points[name].value if name in self._entry_points else name
        place = f"{self.kind} {name!r}" + (f" ({import_path}, an entry point of {self.group})" if import_path != name else "")
        module_name, _, attribute = import_path.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the module of a team raises while it is imported
            raise ValueError(f"The {place} cannot be imported: {type(error).__name__}: {error}") from error
        piece = getattr(module, attribute, None)
        if piece is None:
            pieces = [each for each, value in vars(module).items() if self._suits(value)]
            raise ValueError(f"The {place} does not exist: {module_name} has no {attribute!r}; {nearest(attribute, pieces)}")
        if not self._suits(piece):
            lacking = [member for member in _members(self.protocol) if not hasattr(piece, member)]
            raise ValueError(f"The {place} is no {self.kind}: it lacks {', '.join(lacking) or 'an instance'}.")
        return piece

    def _suits(self, value: Any) -> bool:
        return isinstance(value, self.protocol) and not isinstance(value, type)

    @cached_property
    def _own(self) -> dict[str, Piece]:
        module = importlib.import_module(self.builtin)
        return {name: value for name, value in vars(module).items() if not name.startswith("_") and self._suits(value)}

    @cached_property
    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}

    @cached_property
    def _loaded(self) -> dict[str, Piece]:
        return {}


def _members(protocol: type) -> list[str]:
    """The names that a protocol asks for."""
    own = {name for name in vars(protocol) if not name.startswith("_") or name == "__call__"}
    return sorted(own | set(getattr(protocol, "__annotations__", {})))
