"""Variables in files of the project: `.env` is of one installation, `deployments/<environment>.env` is shared by all of an environment.

A branch environment has a file of its own in its folder (`branches.py`).
"""

import os
from pathlib import Path

from mlops_assets.core.branches import BRANCH_FILE, BRANCH_OF_VARIABLE, branch_name
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project, project_of_process

ENVIRONMENT_VARIABLE = "MLOPS_ENV"
"""Names the file of `deployments/` whose variables count."""

OWNER_FILE = "environment"
"""Of a state folder and of an object storage: the name of the environment that it is of, written by the first start."""
DEFAULT_ENVIRONMENT = "local"

_EXPORTED_VARIABLE = "MLOPS_EXPORTED"
"""Names the variables of a process that are from files of the project, for the processes that inherit them."""

_PATHS = ("MLOPS_HOME", "MLOPS_BACKUP_FOLDER", "MLOPS_TLS_CERTIFICATE", "MLOPS_TLS_KEY", "MLOPS_TLS_CA")
"""Variables that name a folder or a file. In a file of the project it is one of the project, wherever a command is called."""


def project_variables() -> dict[str, str]:
    """The variables that the project of this process states: those of `.env` before those of its environment; none without a project.

    A branch has the variables of the environment that it is of, but for the platform's, which are its own. Raises ValueError when `MLOPS_ENV`
    names no file of `deployments/` and no branch, or a line of a file is no variable.
    """
    project = project_of_process()
    if project is None:
        return {}
    own = read_environment_file(project.environment_file)
    name = _named_environment(own)
    if name is not None and branch_name(name) is not None:
        branched = _branch_variables(project, name)
        of = branched[BRANCH_OF_VARIABLE]
        stated = _stated_variables(project, own, None if of == DEFAULT_ENVIRONMENT else of)
        return {**_without_platform(stated), **branched}
    return _stated_variables(project, own, name)


def environment_variables() -> dict[str, str]:
    """The variables that count: those of the process before those of the project.

    In a branch the platform's are those of its file alone: one that was left set in a shell leads to production. Raises ValueError as
    `project_variables` does.
    """
    process = dict(os.environ)
    return {**project_variables(), **(_without_platform(process) if is_branch() else process)}


def is_branch() -> bool:
    """Whether this process is of a branch environment."""
    return branch_name(environment_name()) is not None


def _without_platform(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if not name.startswith("MLOPS_")}


def _branch_variables(project: Project, environment: str) -> dict[str, str]:
    file = project.branches_directory / str(branch_name(environment)) / BRANCH_FILE
    if not file.exists():
        raise ValueError(f"{ENVIRONMENT_VARIABLE}={environment!r}: there is no such branch; `mlops branch list` shows them.")
    return read_environment_file(file)


def _stated_variables(project: Project, own: dict[str, str], name: str | None) -> dict[str, str]:
    """The variables of `.env` before those of the environment `name`."""
    known = {path.stem: path for path in project.environments_directory.glob("*.env")}
    if name is not None and name not in known:
        raise ValueError(f"{ENVIRONMENT_VARIABLE}={name!r}: {_no_file(name, project)}")
    shared = known.get(name or DEFAULT_ENVIRONMENT)
    variables = {**(read_environment_file(shared) if shared else {}), **own}
    return _with_paths(variables, project)


def variables_of_environment(name: str) -> dict[str, str]:
    """The variables that the file of the environment `name` states, and no others. Raises ValueError as `project_variables` does."""
    project = current_project()
    path = project.environments_directory / f"{name}.env"
    if path not in project.environments_directory.glob("*.env"):
        raise ValueError(_no_file(name, project))
    return _with_paths(read_environment_file(path), project)


def _no_file(name: str, project: Project) -> str:
    known = sorted(path.stem for path in project.environments_directory.glob("*.env"))
    return f"There is no {name}.env in {project.environments_directory}, which has: {', '.join(known) or 'none'}."


def _with_paths(variables: dict[str, str], project: Project) -> dict[str, str]:
    """The variables with those that name a folder or a file as paths of the project."""
    paths = {name: str(project.root / Path(variables[name]).expanduser()) for name in _PATHS if variables.get(name)}
    return {**variables, **paths}


def environment_name() -> str:
    """The name of the environment of this process: `MLOPS_ENV`, of the process or of the project's `.env`; else `local`.

    Raises ValueError when a line of the file is no variable.
    """
    project = project_of_process()
    own = read_environment_file(project.environment_file) if project else {}
    return _named_environment(own) or DEFAULT_ENVIRONMENT


def environment_prefix() -> str:
    """What titles and lines of logs begin with: the name of the environment in brackets. The default one has none."""
    name = environment_name()
    return "" if name == DEFAULT_ENVIRONMENT else f"[{name}] "


def _named_environment(own: dict[str, str]) -> str | None:
    """The environment that the process, or else the variables of its `.env`, name."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or own.get(ENVIRONMENT_VARIABLE)


def refuse_other_environment(what: str, owner: str) -> None:
    """Raise StackError when `what`, which is of the environment `owner`, is not of that of this process."""
    name = environment_name()
    if owner != name:
        raise StackError(
            f"{what} is of the environment {owner}, and this process is of {name}: one does not write what is of the other.",
            remedy=f"For {owner}: mlops --env {owner} ... For {name}, name a place of its own: a variable of the process or of .env "
            f"wins over deployments/{name}.env.",
        )


def export_project_variables() -> None:
    """Set the project's own variables, which its YAML may name, in this process and its children, where they are not set.

    What a process inherits that had it from a file is taken from the file as it is now. Those of the platform (`MLOPS_*`) are not exported:
    `Settings` reads them. Raises ValueError as `project_variables` does.
    """
    stated = _without_platform(project_variables())
    former = set(os.environ.get(_EXPORTED_VARIABLE, "").split())
    for name in former - stated.keys():
        os.environ.pop(name, None)
    exported = {name: value for name, value in stated.items() if name in former or name not in os.environ}
    os.environ.update(exported)
    os.environ[_EXPORTED_VARIABLE] = " ".join(sorted(exported))


def read_environment_file(path: Path) -> dict[str, str]:
    """The variables of a `.env` file as python-dotenv reads it, without interpolation; none when there is no file.

    Raises ValueError naming the file and the line of what is no variable. It does not quote the line, which may hold a secret.
    """
    if not path.exists():
        return {}
    from dotenv.parser import parse_stream

    variables = {}
    with path.open() as file:
        for binding in parse_stream(file):
            if binding.error or (binding.key is not None and binding.value is None):
                raise ValueError(f"{path}, line {binding.original.line}: this is not NAME=value.")
            if binding.key is not None and binding.value is not None:
                variables[binding.key] = binding.value
    return variables
