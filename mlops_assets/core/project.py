"""The project that the platform operates: a folder that somebody owns, with definitions, a dbt project and settings of its own.

It is a Dagster project (https://docs.dagster.io/guides/build/projects), whose `[tool.dg.project]` names the Python module and the code
location, and whose `[tool.mlops]` in `pyproject.toml` makes it one of this platform. No other module computes a path of it.
"""

import functools
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.schema.configuration_errors import nearest

PROJECT_VARIABLE = "MLOPS_PROJECT"
"""The environment variable with the folder of the project, for a process that is started elsewhere."""

_FILE = "pyproject.toml"
_FIELDS = ["dbt_project", "state"]


@dataclass(frozen=True, kw_only=True)
class Project:
    """A folder with solutions, and where its parts are.

    `module` is the Python module of its code, `entry_point` that of Dagster's entry point and `definitions_directory` the folder with one
    folder for each source and solution; `code_location` is the project's name in Dagster. The state is kept in `state_directory` where
    no variable says otherwise.
    """

    root: Path
    module: str
    entry_point: str
    definitions_module: str
    definitions_directory: Path
    code_location: str
    dbt_project: Path
    state_directory: Path

    @property
    def dbt_manifest(self) -> Path:
        """The parsed dbt project, as `mlops prepare` writes it."""
        return self.dbt_project / "target" / "manifest.json"

    @property
    def import_directory(self) -> Path:
        """The folder that Python must search for the modules of the project."""
        return self.definitions_directory.parents[self.definitions_module.count(".")]

    def make_importable(self) -> None:
        """Make the modules of a project importable that is not installed, as Dagster's servers do, which run in its folder."""
        if (folder := str(self.import_directory)) not in sys.path:
            sys.path.insert(0, folder)

    @property
    def environment_file(self) -> Path:
        """The file with variables of this installation, which may hold secrets and is not shared."""
        return self.root / ".env"

    @property
    def environments_directory(self) -> Path:
        """The folder with the variables of each environment (`local.env`, `prod.env`), which hold no secrets and are shared."""
        return self.root / "deployments"

    @property
    def branches_directory(self) -> Path:
        """The folder with the state of each branch environment, which is beside that of others and not in it."""
        return self.state_directory.with_name(f"{self.state_directory.name}-branches")

    @property
    def demo_file(self) -> Path:
        """The file with the plan that `mlops demo` runs."""
        return self.definitions_directory / "demo.yaml"

    @classmethod
    def read(cls, root: Path) -> "Project":
        """The project in the folder `root`.

        Raises StackError with the place and the remedy when its `pyproject.toml` is missing, cannot be read, or says what is not
        understood.
        """
        path = root / _FILE
        try:
            content = tomllib.loads(path.read_text())
        except FileNotFoundError as error:
            raise StackError(f"There is no {_FILE} in {root}.", remedy=_REMEDY) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StackError(f"{path} is no TOML: {error}", remedy="Mend the file.") from error
        tools = content.get("tool", {})
        if "mlops" not in tools:
            raise StackError(f"{path} has no table [tool.mlops].", remedy=f"Add it, it may be empty. {_REMEDY}")
        own = _table(tools, "mlops", path)
        for field in own:
            if field not in _FIELDS:
                raise StackError(
                    f"{path}, [tool.mlops]: unknown field {field!r}; {nearest(field, _FIELDS)}", remedy="Mend the file."
                )
        dagster = _table(_table(tools, "dg", path), "project", path)
        name = str(content.get("project", {}).get("name", root.name))
        module = _text(dagster, "root_module", name.replace("-", "_"), path)
        definitions_module = _text(dagster, "defs_module", f"{module}.defs", path)
        return cls(
            root=root,
            module=module,
            entry_point=_text(dagster, "code_location_target_module", f"{module}.definitions", path),
            definitions_module=definitions_module,
            definitions_directory=_module_directory(root, definitions_module),
            code_location=_text(dagster, "code_location_name", module, path),
            dbt_project=root / _text(own, "dbt_project", "dbt_project", path),
            state_directory=root / _text(own, "state", ".mlops", path),
        )


_REMEDY = f"Go into the folder of a project, or name it: {PROJECT_VARIABLE}=<folder>"


def find_project(start: Path, environment: Mapping[str, str]) -> Project | None:
    """The project that `MLOPS_PROJECT` names, else the one whose folder is `start` or above it; None when there is none.

    Raises StackError when a project is named or found and cannot be read.
    """
    if named := environment.get(PROJECT_VARIABLE):
        return Project.read(Path(named).expanduser().resolve())
    for folder in (start, *start.parents):
        path = folder / _FILE
        if path.is_file() and "[tool.mlops" in path.read_text(errors="replace"):
            return Project.read(folder)
    return None


@functools.cache
def project_of_process() -> Project | None:
    """The project of this process, found once from its environment and working directory; None when there is none."""
    return find_project(Path.cwd(), os.environ)


def current_project() -> Project:
    """The project of this process. Raises StackError with the remedy when there is none."""
    project = project_of_process()
    if project is None:
        raise StackError(f"There is no project in {Path.cwd()} or above it: no {_FILE} with [tool.mlops].", remedy=_REMEDY)
    return project


def _module_directory(root: Path, module: str) -> Path:
    """The folder of a module of the project, which lies in `src/` or beside `pyproject.toml`."""
    parts = module.split(".")
    in_source = root.joinpath("src", *parts)
    return in_source if in_source.is_dir() else root.joinpath(*parts)


def _table(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, Mapping):
        raise StackError(f"{path}: {name} is no table.", remedy="Mend the file.")
    return table


def _text(table: Mapping[str, Any], field: str, default: str, path: Path) -> str:
    value = table.get(field, default)
    if not isinstance(value, str) or not value:
        raise StackError(f"{path}: {field} is no text.", remedy="Mend the file.")
    return value
