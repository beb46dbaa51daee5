"""Parts of a project that the working tree changes since a revision, and what follows from them: what a test of the change is about."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.core.settings import Settings
from mlops_assets.features.generated.project_files import write_generated_models
from mlops_assets.local.prepare import dbt_fingerprint, parse_dbt_project
from mlops_assets.operations.review.dbt_changes import find_dbt_changes
from mlops_assets.operations.review.revision import checked_out, parting_commit, run_git
from mlops_assets.operations.solution_parts import SolutionParts

_WITHOUT_EFFECT = {"docs", "tests", "deployments", ".github"}
"""Folders beside the code of a project, which change nothing that it declares. Its tests are pytest's."""

_FILES_WITHOUT_EFFECT = {".gitignore", ".gitlab-ci.yml", ".env.example"}


@dataclass(frozen=True)
class TouchedParts:
    """The folders of `defs/` with a changed file, and the ids of the dbt models that are modified, or computed from such.

    With a `reason` every part is touched: the change is of something that all of them use.
    """

    folders: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    reason: str = ""

    def touches(self, part: SolutionParts) -> bool:
        """Whether the change touches a solution: its YAML, a dbt model behind it, or a folder that loads or makes what it reads."""
        return bool(self.reason or part.models & self.models or self.folders & {folder.name for folder in part.folders})


def find_touched_parts(settings: Settings, project: Project, reference: str) -> TouchedParts:
    """Compare the working tree, whose dbt project is parsed, with the commit where it and `reference` parted.

    Raises StackError when there is no such revision.
    """
    files = _changed_files(project, parting_commit(project, reference))
    folders, reason = _changed_folders(project, files)
    if reason:
        return TouchedParts(reason=reason)
    with checked_out(project, reference) as revision:
        try:
            write_generated_models(revision.project)
            if dbt_fingerprint(revision.project.dbt_project) == dbt_fingerprint(project.dbt_project):
                return TouchedParts(frozenset(folders))
            parse_dbt_project(settings, revision.project.dbt_project)
        except StackError:
            # Who mends what dbt cannot read must not be stopped by it.
            return TouchedParts(reason=f"dbt cannot read {reference}")
        with tempfile.TemporaryDirectory(prefix="mlops_touched_") as scratch:
            dbt = find_dbt_changes(settings, before=revision.project.dbt_project, after=project.dbt_project, target=Path(scratch))
        return TouchedParts(frozenset(folders), frozenset(dbt.built))


def untouched_solutions(touched: TouchedParts, parts: Mapping[str, SolutionParts]) -> list[str]:
    """The names of the solutions that the change does not touch."""
    return sorted(name for name, part in parts.items() if not touched.touches(part))


def has_effect(project: Project, reference: str) -> bool:
    """Whether a file changed that declares something, or may be used by one that does. Raises StackError when there is no such revision."""
    return bool(_changed_files(project, parting_commit(project, reference)))


def _changed_files(project: Project, commit: str) -> list[PurePosixPath]:
    """Files of the project that differ from those of the commit, relative to its folder, those that git does not follow too.

    Files without effect are left out.
    """
    # A renamed file is one that is gone and one that came.
    changed = run_git(project, "diff", "--name-only", "--no-renames", "--relative", "-z", commit)
    new = run_git(project, "ls-files", "--others", "--exclude-standard", "-z")
    names = [PurePosixPath(name) for name in (changed + new).split("\0") if name]
    return [name for name in names if _is_part(project, name) or not _is_without_effect(name)]


def _changed_folders(project: Project, files: Iterable[PurePosixPath]) -> tuple[set[str], str]:
    """The folders of `defs/` with one of the `files`, and the first file that all parts may use, as a reason. dbt itself compares its own."""
    definitions = project.definitions_directory.relative_to(project.root)
    folders = set()
    for name in files:
        if not _is_part(project, name):
            return set(), f"{name} changed, which every part may use"
        if name.is_relative_to(definitions):
            folders.add(name.relative_to(definitions).parts[0])
    return folders, ""


def _is_part(project: Project, file: PurePosixPath) -> bool:
    """Whether a file is in a folder of `defs/` or of the dbt project, and not in one of these itself, where the files of all are."""
    directories = (directory.relative_to(project.root) for directory in (project.definitions_directory, project.dbt_project))
    return any(file.is_relative_to(directory) and len(file.relative_to(directory).parts) > 1 for directory in directories)


def _is_without_effect(file: PurePosixPath) -> bool:
    if file.parts[0] in _WITHOUT_EFFECT:
        # Variables of an environment may be named in YAML.
        return file.suffix != ".env"
    return file.suffix == ".md" or file.name in _FILES_WITHOUT_EFFECT
