"""The folder `generated/` of a dbt project: the models that the YAML of a project declares, written only where they changed."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.features.dbt_package import read_dbt_project
from mlops_assets.features.generated.dbt_model import GeneratedModel
from mlops_assets.features.generated.raw_sources import sources_file
from mlops_assets.features.generated.rolling_view import derive_view
from mlops_assets.features.generated.spine import derive_spine
from mlops_assets.features.generated.written_models import WrittenModels, read_written_models
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.declarations import Declarations, declared_sources, declared_tables, read_declarations
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source

FOLDER = "generated"
"""The entry of `model-paths` in `dbt_project.yml` beside `models`."""

_WRITTEN = "models"
_RAW = "raw"


def write_generated_models(project: Project) -> list[str]:
    """Make `generated/` of the dbt project what the YAML of `project` declares. Returns the paths that were written or removed.

    A file of YAML that is wrong keeps what was compiled from it: loading its folder says why, and other models may read its tables.
    Raises StackError when dbt would not read the folder.
    """
    folder = project.dbt_project / FOLDER
    models, broken = _compile(project)
    files = dict(_files(project, models)) if _reads_folder(project.dbt_project / "dbt_project.yml", bool(models)) else {}
    changed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if str(path.relative_to(folder)) not in files and _origin_of(path) not in broken:
            path.unlink()
            changed.append(path)
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            changed.append(path)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    return [str(path.relative_to(project.root)) for path in changed]


def spine_of(solution: Solution, project: Project) -> GeneratedModel:
    """The derived spine of a solution of `project`. Raises ConfigurationError."""
    declarations = read_declarations(project.definitions_directory)
    written = read_written_models(project.dbt_project / _WRITTEN)
    if solution.spine_model in written.models:
        path = written.models[solution.spine_model].relative_to(project.dbt_project)
        message = f"{path} is this spine, written by hand: name it, `model: {solution.spine_model}`, or remove the file"
        raise ConfigurationError(("spine", "table"), message)
    return derive_spine(
        solution,
        origin=_origin(solution, project),
        tables=declared_tables(declarations),
        entities={**written.entities, **_declared_entities(declarations)},
    )


def views_of(source: Source, folder: str, project: Project) -> list[GeneratedModel]:
    """The feature views that the source in `defs/<folder>` of `project` declares. Raises ConfigurationError."""
    written = read_written_models(project.dbt_project / _WRITTEN)
    for name in source.feature_views:
        if name in written.models:
            path = written.models[name].relative_to(project.dbt_project)
            raise ConfigurationError(("feature_views", name), f"{path} is this view, written by hand: remove one of them")
    origin = _relative(project.definitions_directory / folder / "defs.yaml", project)
    return [derive_view(name, source, folder=folder, origin=origin) for name in source.feature_views]


def generated_models(project: Project) -> list[GeneratedModel]:
    """The models that the YAML of `project` declares, without those that are wrong."""
    models, _ = _compile(project)
    return models


def _compile(project: Project) -> tuple[list[GeneratedModel], set[str]]:
    """The models, and the files of which something is wrong."""
    models: list[GeneratedModel] = []
    declarations = read_declarations(project.definitions_directory)
    sources, solutions = declared_sources(declarations), declared_solutions(project.definitions_directory).solutions
    broken = {_relative(file, project) for file in declarations.unreadable}
    broken |= {_relative(component.file, project) for component in declarations.components if not component.has_component}
    broken |= {
        _relative(declaration.file, project)
        for declaration in declarations.of("RawTables")
        if declaration.file.parent.name not in sources
    }
    broken |= {
        _relative(declaration.file, project)
        for declaration in declarations.of("MLSolution")
        if not isinstance(declaration.attributes, dict) or declaration.attributes.get("name") not in solutions
    }
    for folder, (file, source) in sources.items():
        try:
            models += views_of(source, folder, project)
        except ConfigurationError:
            broken.add(_relative(file, project))
    for solution in solutions.values():
        if solution.spine.table is not None:
            try:
                models.append(spine_of(solution, project))
            except ConfigurationError:
                broken.add(_origin(solution, project))
    return models, broken


def _origin_of(path: Path) -> str:
    """The file that a compiled one names in its first line."""
    first_line = path.read_text().partition("\n")[0]
    match = re.match(r"(?:--|#) Compiled from (.+?)(?:\.$| by `mlops prepare`)", first_line)
    return match[1] if match else ""


def _files(project: Project, models: Iterable[GeneratedModel]) -> Iterator[tuple[str, str]]:
    """Path below `generated/` -> content."""
    declarations = read_declarations(project.definitions_directory)
    written = read_written_models(project.dbt_project / _WRITTEN)
    for source, (file, _) in declared_sources(declarations).items():
        tables = [
            table for table in declared_tables(declarations).values() if table.source == source and _is_new(table.name, written)
        ]
        if tables:
            yield f"sources/{source}.yml", sources_file(_relative(file, project), tables)
    for model in models:
        yield from model.files().items()


def _declared_entities(declarations: Declarations) -> dict[str, tuple[str, ...]]:
    """Feature view -> its entity keys, of those that sources declare."""
    return {
        name: tuple(view.entity)
        for _, source in declared_sources(declarations).values()
        for name, view in source.feature_views.items()
    }


def _is_new(table: str, written: WrittenModels) -> bool:
    return (_RAW, table) not in written.sources


def _origin(solution: Solution, project: Project) -> str:
    for declaration in read_declarations(project.definitions_directory).of("MLSolution"):
        if (declaration.attributes or {}).get("name") == solution.name:
            return _relative(declaration.file, project)
    return solution.name


def _relative(file: Path, project: Project) -> str:
    return str(file.relative_to(project.root)) if file.is_relative_to(project.root) else str(file)


def _reads_folder(path: Path, is_needed: bool) -> bool:
    """Whether dbt reads the folder. Raises StackError when it is needed and dbt does not."""
    if not path.exists():
        return False
    paths = read_dbt_project(path).get("model-paths", [_WRITTEN])
    if FOLDER in paths:
        return True
    if is_needed:
        raise StackError(
            f"{path}: dbt does not read the models that are compiled from YAML.",
            remedy=f"Add their folder to it: model-paths: [{', '.join([*paths, FOLDER])}]",
        )
    return False
