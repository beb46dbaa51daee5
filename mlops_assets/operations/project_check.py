"""The check of a project before anything runs: every fault of its YAML and dbt files at once, each with file and line.

The folders are loaded as Dagster loads them, so that what is refused there is refused here. What takes seconds comes on top: dbt models on empty
tables, columns that are known after the label, values of parameters, files, and rows where the lake runs and has them.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from mlops_assets.components.faults import DEFINITIONS_FILE, Fault, Severity, locate, model_fault
from mlops_assets.components.loading import read_folders
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.column_lineage import LineageError, compiled_sql
from mlops_assets.feature_store.empty_models import find_model_problems
from mlops_assets.feature_store.known_after_label import ColumnOrigins, find_late_features
from mlops_assets.feature_store.model_problems import FeatureViewError
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import LakeError
from mlops_assets.local.prepare import prepare
from mlops_assets.operations.row_counts import find_row_problems
from mlops_assets.operations.solution_parts import (
    Manifest,
    SolutionParts,
    definition_folders,
    model_files,
    read_manifest,
    solution_parts,
)
from mlops_assets.operations.touched_parts import TouchedParts, find_touched_parts, has_effect, untouched_solutions
from mlops_assets.schema.configuration_errors import ConfigurationError, nearest
from mlops_assets.schema.declarations import declared_sources, declared_tables, read_declarations
from mlops_assets.schema.section_rules import find_doubts
from mlops_assets.sources.extract import SourceError
from mlops_assets.sources.files import source_path
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.parameter_values import find_wrong_values

_DBT_FILE = re.compile(r"(?:models|macros|seeds|generated)/[\w./-]+\.\w+")
_DBT_LINE = re.compile(r"\bline (\d+)")


@dataclass(frozen=True)
class ProjectCheck:
    """What was found: `faults` in the order of the files, the `folders` that were checked, and what was `not_checked`, with the reason.

    `untouched` are the solutions that were left out because the change does not touch them.
    """

    faults: tuple[Fault, ...]
    folders: tuple[str, ...]
    not_checked: tuple[str, ...]
    untouched: tuple[str, ...] = ()

    @property
    def errors(self) -> list[Fault]:
        """The faults that stop a load or a run."""
        return [fault for fault in self.faults if fault.severity == "error"]


def check_project(settings: Settings, name: str | None, changed_since: str | None = None) -> ProjectCheck:
    """Check every folder of `defs/`, or those that the solution or folder `name` needs, or what changed since the revision `changed_since`.

    Raises StackError when there is no such name or revision.
    """
    project = current_project()
    folders = definition_folders(project)
    solutions = declared_solutions(project.definitions_directory).solutions
    if name is not None and name not in folders and name not in solutions:
        raise StackError(
            f"No folder of defs/ declares {name!r}.", remedy=f"Names: {nearest(name, sorted({*folders, *solutions}))}"
        )
    check = _Check(settings, project)
    check.run(name, changed_since)
    order = sorted(set(check.faults), key=lambda fault: (fault.file, fault.line or 0, fault.field, fault.message))
    return ProjectCheck(
        tuple(order), tuple(sorted(check.folders)), tuple(dict.fromkeys(check.not_checked)), tuple(check.untouched)
    )


class _Check:
    """One check of a project, and what it found so far."""

    def __init__(self, settings: Settings, project: Project):
        self._settings = settings
        self._project = project
        self.folders = set(definition_folders(project))
        self.faults: list[Fault] = []
        self.not_checked: list[str] = []
        self.untouched: list[str] = []

    def run(self, name: str | None, changed_since: str | None) -> None:
        """Check everything, or what the solution or folder `name` needs, or what changed since a revision and what follows from it."""
        if changed_since is not None and not has_effect(self._project, changed_since):
            self.folders, self.untouched = set(), sorted(declared_solutions(self._project.definitions_directory).solutions)
            return
        is_parsed = self._parse()
        manifest = read_manifest(self._project)
        parts: dict[str, SolutionParts] = {}
        with suppress(FeatureViewError):  # is among the faults of the folders
            parts = solution_parts(self._project, manifest)
        touched = TouchedParts(reason="nothing is left out")
        if name is not None:
            self.folders &= {name, *(folder.name for folder in parts[name].folders)} if name in parts else {name}
        elif changed_since is not None:
            touched = self._touched(changed_since, is_parsed, parts)
        self._project.make_importable()
        loaded = read_folders(self._project.definitions_module, self._project.definitions_directory)
        chosen = [folder for folder in loaded if folder.path.name in self.folders]
        self.faults += [fault for folder in chosen for fault in folder.faults]
        self._check_files()
        if not is_parsed:
            return
        models = None if name is None else parts[name].models if name in parts else frozenset()
        if not touched.reason:
            models = touched.models.union(*(part.models for solution, part in parts.items() if solution not in self.untouched))
        origins = self._check_models(manifest, models)
        right = {folder.path for folder in chosen if folder.definitions is not None}
        solutions = declared_solutions(self._project.definitions_directory).solutions
        for solution, part in parts.items():
            if part.folder in right and name in (None, solution, part.folder.name) and touched.touches(part):
                inputs = resolve_inputs(solutions[solution], FeatureRegistry.from_manifest(self._project.dbt_manifest))
                self._check_solution(inputs, part, origins)

    def _touched(self, reference: str, is_parsed: bool, parts: Mapping[str, SolutionParts]) -> TouchedParts:
        """What changed since `reference`; leaves out the folders that no touched solution needs."""
        if not is_parsed:
            return TouchedParts(reason="dbt cannot read the project")
        touched = find_touched_parts(self._settings, self._project, reference)
        if not touched.reason:
            self.untouched = untouched_solutions(touched, parts)
            needed = {folder.name for name, part in parts.items() if name not in self.untouched for folder in part.folders}
            self.folders &= touched.folders | needed
        return touched

    def _parse(self) -> bool:
        """Parse the dbt project, where it changed; returns whether it can be read."""
        try:
            prepare(self._settings)
        except StackError as error:
            self._add_dbt_fault(error.problem)
            self.not_checked.append("dbt models and features: dbt cannot read the project")
            return False
        return True

    def _check_files(self) -> None:
        declarations = read_declarations(self._project.definitions_directory)
        for file, source in declared_sources(declarations).values():
            if file.parent.name not in self.folders:
                continue
            errors = []
            for name, table in source.tables.items():
                for number, label in enumerate(table.files or []):
                    path = ("tables", name, "files", number)
                    try:
                        if "://" not in label and not source_path(label, file.parent).is_file():
                            errors.append(
                                ConfigurationError(path, f"there is no file {label}; paths begin at {file.parent.name}/")
                            )
                    except SourceError as error:
                        errors.append(ConfigurationError(path, str(error)))
            self.faults += locate(file, errors)

    def _check_models(self, manifest: Manifest, models: Iterable[str] | None) -> ColumnOrigins | None:
        """Check the SQL and the contracts of `models` (None: all); returns where their columns come from."""
        project, directory = self._project, self._project.dbt_project
        try:
            compiled = compiled_sql(directory, project.dbt_manifest, self._settings.home / "lineage")
        except LineageError as error:
            self._add_dbt_fault(str(error))
            self.not_checked.append("the SQL of dbt models: dbt cannot compile the project")
            return None
        tables = declared_tables(read_declarations(project.definitions_directory))
        raw = {name: declared.table for name, declared in tables.items()}
        files = None if models is None else model_files(manifest, models)
        problems = find_model_problems(manifest, compiled, raw, directory)
        self.faults += [model_fault(problem) for problem in problems if files is None or problem.file in files]
        return ColumnOrigins(manifest, compiled, raw)

    def _check_solution(self, inputs: SolutionInputs, parts: SolutionParts, origins: ColumnOrigins | None) -> None:
        solution, path = inputs.solution, parts.folder / DEFINITIONS_FILE

        def add(errors: Iterable[ConfigurationError], severity: Severity = "error") -> None:
            self.faults.extend(locate(path, errors, severity))

        add(find_doubts(solution), "warning")
        add(find_wrong_values(solution.training))
        if origins is not None:
            views = {
                position: chosen
                for position, source in enumerate(solution.features)
                for chosen in inputs.views
                if chosen.view.name == source.view
            }
            for late in find_late_features(solution, inputs.spine, views, origins):
                add([ConfigurationError(late.path, late.message)], "error" if late.is_certain else "warning")
        try:
            with Lake.from_settings(self._settings).connect(read_only=True) as connection:
                add(find_row_problems(connection, inputs))
        except LakeError:
            self.not_checked.append("rows: the lake does not run (mlops up)")

    def _add_dbt_fault(self, text: str) -> None:
        """Add what dbt says, at the file and line that it names."""
        file, line = _DBT_FILE.search(text), _DBT_LINE.search(text)
        path = self._project.dbt_project / (file.group() if file else "dbt_project.yml")
        self.faults.append(Fault(path, int(line.group(1)) if line and file else None, "", " ".join(text.split())))
