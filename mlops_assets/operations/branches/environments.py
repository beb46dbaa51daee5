"""Branches of a project: making one, listing all, removing one with everything that it left."""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.core.branches import BRANCH_FILE, BRANCH_MADE_VARIABLE, BRANCH_OF_VARIABLE, branch_environment, branch_name_of
from mlops_assets.core.environment_files import environment_name, is_branch, read_environment_file
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.core.settings import Settings
from mlops_assets.lake.branching import lost_files
from mlops_assets.lake.lake import Lake
from mlops_assets.local import control, postgres
from mlops_assets.local.environment import settings_variables
from mlops_assets.operations.branches.creation import check_environment, fill_branch

_FIRST_PORT, _LAST_PORT, _PORTS = 20_000, 29_999, 4
_SNAPSHOT = "MLOPS_BRANCH_SNAPSHOT"


@dataclass(frozen=True)
class Branch:
    """A branch: the environment that it is of, the snapshot of that one's lake, and when it was made. All are None while it is incomplete."""

    name: str
    folder: Path
    of: str | None
    snapshot: int | None
    made: datetime | None
    settings: Settings

    @property
    def environment(self) -> str:
        """The name for `mlops --env`."""
        return branch_environment(self.name)


def default_name(project: Project) -> str:
    """The name of a branch for the branch of git that is checked out. Raises StackError when there is none."""
    answer = subprocess.run(
        ["git", "symbolic-ref", "--short", "HEAD"],  # noqa: S607 - the git of whoever calls
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise StackError(f"No branch of git is checked out in {project.root}.", remedy="Name the branch: mlops branch up NAME")
    return checked_name(answer.stdout)


def checked_name(text: str) -> str:
    """The name of the branch for what a person called it. Raises StackError when it can be no name."""
    try:
        return branch_name_of(text)
    except ValueError as error:
        raise StackError(str(error), remedy="Use letters, digits and hyphens.") from error


def find_branches(project: Project) -> list[Branch]:
    """All branches of the project, by name."""
    if not project.branches_directory.is_dir():
        return []
    return [_read(folder) for folder in sorted(project.branches_directory.iterdir()) if folder.is_dir()]


def make_branch(project: Project, production: Settings, name: str, report: Callable[[str], None]) -> Branch:
    """Make the branch `name` of the environment of `production` unless there is one. It is not started.

    Raises StackError when this environment is itself a branch, or cannot be read.
    """
    if is_branch():
        raise StackError(
            f"{environment_name()} is a branch itself.",
            remedy="Unset MLOPS_ENV, or name the environment: mlops --env prod branch up",
        )
    folder = project.branches_directory / name
    with _one_at_a_time(project):
        if (folder / BRANCH_FILE).exists():
            return _read(folder)
        check_environment(production)
        _remove(folder)
        settings = _branch_settings(production, folder, _free_ports(name, _used_ports(project, production)))
        folder.mkdir(mode=0o700)
        # Before it: what the environment no longer needs from now on, the branch does.
        began = datetime.now(UTC)
        beginning = fill_branch(production, settings, report)
        variables = {
            **settings_variables(settings),
            # Not in the settings of a process, but in those of the environment that it is of.
            "MLOPS_BUNDLE_STORE": settings.bundle_store,
            BRANCH_OF_VARIABLE: environment_name(),
            _SNAPSHOT: str(beginning.snapshot),
            BRANCH_MADE_VARIABLE: began.isoformat(timespec="seconds"),
        }
        _write_variables(folder / BRANCH_FILE, variables)
        return _read(folder)


def check_files(branch: Branch) -> None:
    """Raise StackError when files that `branch` reads are gone. Its Postgres runs."""
    lost = lost_files(Lake.from_settings(branch.settings))
    if lost:
        raise StackError(
            f"{branch.name} is too old: maintenance of {branch.of} has removed {len(lost)} files that it reads, such as {lost[0]}.",
            remedy=f"Make it anew: mlops branch down {branch.name}, then mlops branch up {branch.name}",
        )


def remove_branch(project: Project, name: str) -> int | None:
    """End what runs of the branch `name`, and remove its folder with all databases, streams and files.

    Returns the number of processes that ended, None when there is no such branch. Whatever killed its processes before makes no difference.
    """
    if not project.branches_directory.is_dir():
        return None
    with _one_at_a_time(project):
        return _remove(project.branches_directory / name)


def _remove(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    settings = Settings(home=folder)
    count = control.down(settings)
    postgres.release_memory(settings)
    shutil.rmtree(folder)
    return count


def _read(folder: Path) -> Branch:
    variables = read_environment_file(folder / BRANCH_FILE)
    return Branch(
        name=folder.name,
        folder=folder,
        of=variables.get(BRANCH_OF_VARIABLE),
        snapshot=int(variables[_SNAPSHOT]) if _SNAPSHOT in variables else None,
        made=datetime.fromisoformat(variables[BRANCH_MADE_VARIABLE]) if BRANCH_MADE_VARIABLE in variables else None,
        settings=Settings.from_environment({"MLOPS_HOME": str(folder), **variables}),
    )


def _branch_settings(production: Settings, folder: Path, ports: tuple[int, ...]) -> Settings:
    """Settings of a branch: no server, storage or address of others, and none of their secrets."""
    dagster_port, mlflow_port, nats_port, serving_port = ports
    return Settings(
        home=folder,
        dagster_port=dagster_port,
        mlflow_port=mlflow_port,
        nats_port=nats_port,
        serving_port=serving_port,
        serving_processes=1,
        sensor_seconds=production.sensor_seconds,
        warm_runs=production.warm_runs,
        durability="buffered",
        branched_storage=production.lake_location if production.storage else None,
    )


def _used_ports(project: Project, production: Settings) -> set[int]:
    """The ports of the environment and of all branches, whose servers may be down."""
    used = (production, *(branch.settings for branch in find_branches(project)))
    return {port for each in used for port in (each.dagster_port, each.mlflow_port, each.nats_port, each.serving_port)}


def _free_ports(name: str, used: Set[int]) -> tuple[int, ...]:
    """Adjacent ports that are free, the same ones for a name where they can be."""
    blocks = (_LAST_PORT + 1 - _FIRST_PORT) // _PORTS
    first = zlib.crc32(name.encode()) % blocks
    for block in (*range(first, blocks), *range(first)):
        ports = tuple(_FIRST_PORT + block * _PORTS + number for number in range(_PORTS))
        if used.isdisjoint(ports) and all(map(_is_free, ports)):
            return ports
    raise StackError(f"No {_PORTS} adjacent ports from {_FIRST_PORT} to {_LAST_PORT} are free.", remedy="mlops branch list")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_variables(path: Path, variables: dict[str, str]) -> None:
    """Write the file, complete when it gets its name."""
    escaped = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in variables.items()}
    scratch = path.with_name(f".{path.name}")
    scratch.write_text("".join(f"{name}='{value}'\n" for name, value in escaped.items()))
    scratch.replace(path)


@contextlib.contextmanager
def _one_at_a_time(project: Project) -> Iterator[None]:
    """Hold the folder of all branches, which exists in the block, and is removed with the last branch."""
    directory = project.branches_directory
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(directory, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        if directory.exists() and os.fstat(held).st_ino == directory.stat().st_ino:
            break
        os.close(held)  # somebody removed it meanwhile
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()  # unless it has branches
        os.close(held)
