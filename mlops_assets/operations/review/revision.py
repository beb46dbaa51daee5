"""A revision of a project beside the working tree: its files in a scratch folder, its definitions loaded by processes of their own."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import PROJECT_VARIABLE, Project

Dump = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Kind -> name -> what `definitions_dump` writes of it."""

_DUMP_PROGRAM = Path(__file__).with_name("definitions_dump.py")


@dataclass(frozen=True)
class Revision:
    """A commit of a project as files: `project` is in a scratch folder, `reference` is what a person called it."""

    reference: str
    commit: str
    project: Project


@contextmanager
def checked_out(project: Project, reference: str) -> Iterator[Revision]:
    """Put the files of the commit at which the working tree and `reference` parted into a scratch folder for the block.

    Raises StackError when the project is in no git repository, or there is no such commit.
    """
    commit = _git(project, "merge-base", reference, "HEAD").strip()
    prefix = _git(project, "rev-parse", "--show-prefix").strip()
    with TemporaryDirectory(prefix="mlops_diff_") as name:
        archive, tree = Path(name) / "tree.tar", Path(name) / "tree"
        # By git's archive: a work tree would be recorded in the repository, and stay there after a kill.
        _git(project, "archive", "--format=tar", f"--output={archive}", f"{commit}:{prefix}")
        with tarfile.open(archive) as opened:
            opened.extractall(tree, filter="data")
        archive.unlink()
        if project.environment_file.exists():
            # It is of the installation, not of a revision.
            shutil.copy(project.environment_file, tree)
        yield Revision(reference, commit, Project.read(tree.resolve()))


def dump_projects(projects: Mapping[str, Project], folder: Path) -> dict[str, Dump]:
    """Prepare and load each of `projects`, all at once, and return their definitions by the same name.

    `folder` gets the state that they would use. Raises StackError with the message of one that cannot be loaded.
    """
    processes = {name: _start_dump(project, folder / name) for name, project in projects.items()}
    messages = {name: process.communicate()[0] for name, process in processes.items()}
    for name, process in processes.items():
        if process.returncode != 0:
            lines = [line for line in messages[name].strip().splitlines() if line.strip()]
            raise StackError(
                f"The definitions of {name} cannot be loaded:\n" + "\n".join(lines[-12:]),
                remedy="mlops check, in that revision, names every fault.",
            )
    return {name: json.loads((folder / name / "definitions.json").read_text()) for name in projects}


def _start_dump(project: Project, folder: Path) -> "subprocess.Popen[str]":
    folder.mkdir(parents=True)
    importable = project.definitions_directory.parents[project.definitions_module.count(".")]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONPATH": str(importable),
        PROJECT_VARIABLE: str(project.root),
        # Nothing of the installation's own state is written.
        "MLOPS_HOME": str(folder),
    }
    command = [sys.executable, "-P", str(_DUMP_PROGRAM), project.entry_point, str(folder / "definitions.json")]
    return subprocess.Popen(
        command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _git(project: Project, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        raise StackError("There is no program `git`.", remedy="Install it: the revision to compare with is read by it.")
    done = subprocess.run([program, *arguments], cwd=project.root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(
            f"git {arguments[0]} failed in {project.root}: {done.stderr.strip()}",
            remedy="Name a commit, a branch or a tag of the project's git repository: mlops diff main",
        )
    return done.stdout
