"""Preparation of an installation: the DuckDB extensions, the dbt models compiled from YAML, the dbt manifest. Nothing is downloaded."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, Settings
from mlops_assets.features.dbt_package import DBT_PACKAGE, dbt_profile_variables, link_dbt_package
from mlops_assets.features.generated.project_files import write_generated_models
from mlops_assets.local.environment import process_environment, scripts_directory
from mlops_assets.local.permissions import readable_by_all

DUCKDB_EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs")

OPTIONAL_DUCKDB_EXTENSIONS = ("aws",)
"""Those of extras of the package: installed where their wheels are."""

# Folders of the dbt project that dbt writes, and the packages that decide how it is parsed.
_DBT_OUTPUT_FOLDERS = {"target", "logs", "dbt_packages"}
_SCHEMA = Path(__file__).parents[1] / "components" / "defs.schema.json"
_DBT_PACKAGES = ("dbt-core", "dbt-duckdb", "duckdb")
_TIME_VARIABLE = "SOURCE_DATE_EPOCH"
"""Of reproducible-builds.org: the time that what is built is to name."""
_WRITTEN_BY_TEAMS = {"meta", "rows", "vars"}
"""Keys of a dbt manifest with names of others: `rows` are those of unit tests."""


def install_duckdb_extensions(directory: Path) -> list[str]:
    """Install the DuckDB extensions from their wheels into `directory`. Returns the names of those that were not there yet.

    Each is loaded once with its signature verified, which later connections do not do again.
    """
    import duckdb
    from duckdb_extensions import import_extension

    configuration: dict[str, str | bool | int | float | list[str]] = {
        "extension_directory": str(directory),
        "autoinstall_known_extensions": "false",
    }
    with readable_by_all(), duckdb.connect(config=configuration) as connection:
        directory.mkdir(parents=True, exist_ok=True)
        rows = connection.execute("SELECT extension_name FROM duckdb_extensions() WHERE installed").fetchall()
        optional = [name for name in OPTIONAL_DUCKDB_EXTENSIONS if find_spec(f"duckdb_extension_{name}")]
        missing = [name for name in (*DUCKDB_EXTENSIONS, *optional) if (name,) not in rows]
        for name in missing:
            import_extension(name, con=connection)
            connection.load_extension(name)
    return missing


def parse_dbt_project(settings: Settings, project: Path) -> bool:
    """Write the dbt manifest to `target/` of the project, unless it is up to date. Returns whether dbt had to run.

    Raises StackError with what dbt said when the project cannot be parsed.
    """
    if not (project / "dbt_project.yml").exists():
        raise StackError(f"There is no dbt project in {project}.", remedy="Restore the folder: git checkout -- dbt_project")
    stamp = project / "target" / "prepared"
    fingerprint = dbt_fingerprint(project)
    with readable_by_all():
        link_dbt_package(project)
    if stamp.exists() and stamp.read_text() == fingerprint and (project / "target" / "manifest.json").exists():
        return False
    command = [str(scripts_directory() / "dbt"), "--quiet", "parse", "--project-dir", str(project)]
    environment = process_environment(settings) | dbt_profile_variables()
    with readable_by_all():
        parsed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=project)
    if parsed.returncode != 0:
        raise StackError(
            f"dbt cannot parse {project}:\n{(parsed.stdout + parsed.stderr).strip()}",
            remedy="Correct the file it names, or what `mlops check` names, then try again: mlops prepare",
        )
    if seconds := os.environ.get(_TIME_VARIABLE):
        fix_times(project / "target", int(seconds))
    stamp.write_text(fingerprint)
    return True


def fix_times(target: Path, seconds: int) -> None:
    """Replace times and the number of the command in what dbt wrote of a parsed project, so that an image has the same bytes again."""
    import msgpack

    moment = datetime.fromtimestamp(seconds, UTC).isoformat()
    fixed: dict[str, str | float] = {
        **dict.fromkeys(("created_at", "modification_time"), float(seconds)),
        **dict.fromkeys(("generated_at", "invocation_started_at", "run_started_at"), moment),
        "invocation_id": str(UUID(int=seconds)),
    }
    (target / "perf_info.json").unlink(missing_ok=True)
    manifest, parsed = target / "manifest.json", target / "partial_parse.msgpack"
    manifest.write_text(json.dumps(_with_values(json.loads(manifest.read_text()), fixed)))
    parsed.write_bytes(msgpack.packb(_with_values(msgpack.unpackb(parsed.read_bytes(), strict_map_key=False), fixed)))


def _with_values(content: Any, fixed: Mapping[str, str | float]) -> Any:
    """Content of JSON in which each value of a key of `fixed` of the same type is replaced, but in what the team wrote under such names."""
    if isinstance(content, list):
        return [_with_values(value, fixed) for value in content]
    if not isinstance(content, dict):
        return content
    return {
        key: fixed[key]
        if key in fixed and isinstance(value, type(fixed[key]))
        else value
        if key in _WRITTEN_BY_TEAMS
        else _with_values(value, fixed)
        for key, value in content.items()
    }


def copy_json_schema(project: Project) -> bool:
    """Put the JSON Schema of the package, which editors check YAML by, into the `defs/` of `project`. Returns whether it changed."""
    folder = project.definitions_directory
    target = folder / _SCHEMA.name
    if not folder.is_dir() or (target.is_file() and target.read_bytes() == _SCHEMA.read_bytes()):
        return False
    target.write_bytes(_SCHEMA.read_bytes())
    return True


def prepare(settings: Settings) -> list[str]:
    """Do all of it. Returns one line a thing that was done, none when everything was there."""
    done = [f"DuckDB extension {name} installed" for name in install_duckdb_extensions(DUCKDB_EXTENSION_DIRECTORY)]
    project = current_project()
    if copy_json_schema(project):
        done.append(f"{_SCHEMA.name} copied")
    done += [f"{path} compiled" for path in write_generated_models(project)]
    if parse_dbt_project(settings, project.dbt_project):
        done.append("dbt project parsed")
    return done


def dbt_fingerprint(project: Path) -> str:
    """A digest of all files of a dbt project, those compiled from YAML too, and of the packages that decide how it is parsed."""
    digest = hashlib.sha256(" ".join(f"{package}=={version(package)}" for package in _DBT_PACKAGES).encode())
    for folder in (project, DBT_PACKAGE):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.relative_to(folder).parts[0] not in _DBT_OUTPUT_FOLDERS:
                digest.update(f"\n{path.relative_to(folder)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
