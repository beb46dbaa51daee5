"""What the YAML files of a project declare, read without loading definitions: components, sources and raw tables."""

import importlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlops_assets.schema.remembering import remembered
from mlops_assets.schema.source import RawTable, Source
from mlops_assets.schema.yaml_loader import ProjectLoader

_COMPONENTS = ("RawTables", "DbtModels", "MLSolution")


@dataclass(frozen=True)
class Declaration:
    """One component of a `defs.yaml`: its file, its `type`, and its attributes as they stand. A document without a type has an empty one."""

    file: Path
    type: str
    attributes: Any

    @property
    def component(self) -> str:
        """The last part of the type, such as `MLSolution`."""
        return self.type.rpartition(".")[2]

    @property
    def has_component(self) -> bool:
        """Whether there is a component of the type."""
        if self.component in _COMPONENTS:
            return True
        module = self.type.rpartition(".")[0]
        try:
            return bool(module) and hasattr(importlib.import_module(module), self.component)
        except ImportError:
            return False


@dataclass(frozen=True, eq=False)
class Declarations:
    """The components of a `defs` folder, and the files that are no YAML, with a line for each."""

    components: tuple[Declaration, ...]
    unreadable: tuple[Path, ...]
    problems: tuple[str, ...]

    def of(self, component: str) -> list[Declaration]:
        """Those of one kind, such as `MLSolution`."""
        return [declaration for declaration in self.components if declaration.component == component]


@dataclass(frozen=True)
class DeclaredTable:
    """A raw table with the source that declares it: `source` is the name of its folder."""

    name: str
    source: str
    owners: tuple[str, ...]
    file: Path
    table: RawTable


@remembered
def read_declarations(directory: Path) -> Declarations:
    """The components in `<directory>/*/defs.yaml`; read again when a file changes."""
    return _read(tuple(_files(directory)))


def _files(directory: Path) -> Iterator[tuple[str, int]]:
    """Each file with the time of its last change. Every component asks for it when it is loaded: `Path.glob` takes ten times as long."""
    folders = sorted(entry.path for entry in os.scandir(directory)) if directory.is_dir() else []
    for folder in folders:
        path = os.path.join(folder, "defs.yaml")  # noqa: PTH118
        with suppress(FileNotFoundError, NotADirectoryError):
            yield path, os.stat(path).st_mtime_ns  # noqa: PTH116


@lru_cache(maxsize=4)
def _read(files: tuple[tuple[str, int], ...]) -> Declarations:
    components: list[Declaration] = []
    unreadable: list[Path] = []
    problems: list[str] = []
    for path in (Path(file) for file, _ in files):
        try:
            documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=ProjectLoader))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            unreadable.append(path)
            problems.append(f"{path.parent.name}/{path.name}: {error}")
            continue
        components += [
            Declaration(file=path, type=str(document.get("type", "")), attributes=document.get("attributes"))
            if isinstance(document, dict)
            else Declaration(file=path, type="", attributes=document)
            for document in documents
            if document is not None
        ]
    return Declarations(components=tuple(components), unreadable=tuple(unreadable), problems=tuple(problems))


@lru_cache(maxsize=4)
def declared_sources(declarations: Declarations) -> dict[str, tuple[Path, Source]]:
    """Name of the folder -> file and source. A source that is not valid is left out: loading it says why."""
    sources = {}
    for declaration in declarations.of("RawTables"):
        try:
            sources[declaration.file.parent.name] = declaration.file, Source.model_validate(declaration.attributes)
        except ValidationError:
            continue
    return sources


@lru_cache(maxsize=4)
def declared_tables(declarations: Declarations) -> dict[str, DeclaredTable]:
    """Name -> raw table, of all valid sources."""
    return {
        name: DeclaredTable(name=name, source=source_name, owners=tuple(source.owners), file=file, table=table)
        for source_name, (file, source) in declared_sources(declarations).items()
        for name, table in source.tables.items()
    }
