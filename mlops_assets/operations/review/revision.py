"""A revision of a project beside the working tree: its files in a scratch folder, its definitions loaded by a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
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


def parting_commit(project: Project, reference: str) -> str:
    """The commit at which the working tree and `reference` parted. Raises StackError as `checked_out` does."""
    return run_git(project, "merge-base", "--end-of-options", reference, "HEAD").strip()


@contextmanager
def checked_out(project: Project, reference: str) -> Iterator[Revision]:
    """Put the files of the commit at which the working tree and `reference` parted into a scratch folder for the block.

    Raises StackError when the project is in no git repository, or there is no such commit.
    """
    commit = parting_commit(project, reference)
    prefix = run_git(project, "rev-parse", "--show-prefix").strip()
    with TemporaryDirectory(prefix="mlops_diff_") as name:
        archive, tree = Path(name) / "tree.tar", Path(name) / "tree"
        # By git's archive: a work tree would be recorded in the repository, and stay there after a kill.
        run_git(project, "archive", "--format=tar", f"--output={archive}", f"{commit}:{prefix}")
        with tarfile.open(archive) as opened:
            opened.extractall(tree, filter="data")
        archive.unlink()
        if project.environment_file.exists():
            # It is of the installation, not of a revision.
            shutil.copy(project.environment_file, tree)
        yield Revision(reference, commit, Project.read(tree.resolve()))


@contextmanager
def dumped(revision: Revision, folder: Path) -> Iterator[Callable[[], Dump]]:
    """Load the definitions of `revision` in a process of its own while the block goes on; yields what waits for them.

    `folder` gets the state that the process would use. What is yielded raises StackError with the message of definitions that cannot be loaded.
    """
    project, target = revision.project, folder / "definitions.json"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONPATH": str(project.import_directory),
        PROJECT_VARIABLE: str(project.root),
        # Nothing of the installation's own state is written.
        "MLOPS_HOME": str(folder),
    }
    command = [sys.executable, "-P", str(_DUMP_PROGRAM), project.entry_point, str(target)]
    with subprocess.Popen(
        command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:

        def wait() -> Dump:
            lines = [line for line in process.communicate()[0].splitlines() if line.strip()]
            if process.returncode != 0:
                raise StackError(
                    f"The definitions of {revision.reference} cannot be loaded:\n" + "\n".join(lines[-12:]),
                    remedy="mlops check, in that revision, names every fault.",
                )
            return json.loads(target.read_text())

        try:
            yield wait
        finally:
            if process.poll() is None:
                process.terminate()


def run_git(project: Project, *arguments: str) -> str:
    """What git answers in the folder of the project. Raises StackError with what it says when it fails."""
    program = shutil.which("git")
    if program is None:
        raise StackError("There is no program `git`.", remedy="Install it: the revision to compare with is read by it.")
    done = subprocess.run([program, *arguments], cwd=project.root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        remedy = "Name a commit, a branch or a tag of the project's git repository, such as main."
        if subprocess.run(
            [program, "rev-parse", "--verify", "HEAD"], cwd=project.root, capture_output=True, check=False
        ).returncode:
            remedy = "Commit the project: git init, git add --all, git commit. What changes from then on can be compared with it."
        raise StackError(f"git {arguments[0]} failed in {project.root}: {done.stderr.strip()}", remedy=remedy)
    return done.stdout
