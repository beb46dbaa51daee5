"""The files of a new solution, written beside what is there and never over it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.components.faults import DEFINITIONS_FILE
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.operations.new_solution.origin import Origin, table_name
from mlops_assets.operations.new_solution.proposal import Proposal
from mlops_assets.schema.declarations import declared_tables, read_declarations

_RESERVED = {"raw", "features", "staging", "main", "information_schema", "reference"}
"""Schemas of the lake that are no solution's."""


@dataclass(frozen=True)
class NewFiles:
    """The places of the files: the folders of the source (None: the table is there) and of the solution, and the copy of the data, if any."""

    source: Path | None
    solution: Path
    copy: Path | None
    label: str


def plan_files(project: Project, name: str, origin: Origin, *, references: bool) -> NewFiles:
    """Where the files of the solution `name` go. Raises StackError, before anything is read, for what exists already.

    A file of data is copied beside the source that names it, unless it lies there, or `references` is asked for.
    """
    if name != table_name(name) or not name:
        allowed = table_name(name) or "my_solution"
        problem = f"{name!r} cannot be the name of a solution: lower-case letters, digits and _, a letter first."
        raise StackError(problem, remedy=f"Choose another one: mlops new {allowed}")
    if name in _RESERVED:
        raise StackError(f"{name} is a schema of the platform.", remedy=f"Choose another name: mlops new {name}_model")
    folder = project.definitions_directory
    source, solution = folder / f"{name}_source", folder / name
    has_source = origin.declared is None
    declarations = read_declarations(folder)
    files = [solution / DEFINITIONS_FILE, *([source / DEFINITIONS_FILE] if has_source else [])]
    existing = [str(path) for path in files if path.exists()]
    if name in declared_solutions(folder).solutions:
        existing.append(f"a solution {name}")
    remedy = f"Choose another name: mlops new {name}_2, or remove it: mlops remove {name}"
    if has_source and (table := declared_tables(declarations).get(name)) is not None:
        remedy = f"{remedy}. For a second solution on that table: mlops new {name}_2 --table {name}"
        existing.append(f"a raw table {name} of {table.file}")
    copy, label = _place(source, origin, references=references)
    if copy is not None and copy.exists():
        existing.append(str(copy))
    if existing:
        raise StackError(
            f"There is already: {'; '.join(dict.fromkeys(existing))}. Nothing is overwritten.",
            remedy=remedy,
        )
    return NewFiles(source if has_source else None, solution, copy, label)


def _place(source: Path, origin: Origin, *, references: bool) -> tuple[Path | None, str]:
    """Where the data is copied to (None: nowhere), and how the source names it."""
    if origin.path is None:
        return None, origin.label
    if origin.path.is_relative_to(source.resolve()):
        return None, str(origin.path.relative_to(source.resolve()))
    if references:
        return None, str(origin.path)
    return source / origin.path.name, origin.path.name


def write_files(files: NewFiles, origin: Origin, proposal: Proposal) -> list[Path]:
    """Write the data, the source and the solution; returns the files. Raises FileExistsError for one that came meanwhile."""
    written = []
    texts = [(files.solution, proposal.solution_yaml)]
    if files.source is not None:
        texts.insert(0, (files.source, proposal.source_yaml))
    for folder, _ in texts:
        folder.mkdir(exist_ok=True)
    if files.copy is not None and origin.path is not None:
        with files.copy.open("xb") as target, origin.path.open("rb") as data:
            shutil.copyfileobj(data, target)
        written.append(files.copy)
    for folder, text in texts:
        path = folder / DEFINITIONS_FILE
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        written.append(path)
    return written
