"""A running stack as tests see it: its clients, and what the demo said. Fixtures are in `conftest.py`."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import canaries
import pytest
from ports import free_ports
from typer.testing import CliRunner

from mlops_assets.access.credentials import access_token, authorization
from mlops_assets.cli.main import app
from mlops_assets.cli.terminal import console, error_console
from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.project import Project, current_project
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import fingerprint
from mlops_assets.local import control
from mlops_assets.local.environment import process_environment, scripts_directory
from mlops_assets.local.permissions import PRIVATE_UMASK
from mlops_assets.online_store.store import open_online_store
from mlops_assets.operations.runs import follow_run

_SENSOR_SECONDS = 10
"""Tests wait for sensors. Each tick of one takes a tenth of a second of a processor: at 2 s they would leave the tests little of it."""

CHROMIUM = shutil.which("chromium")

_COLUMNS = 400
"""Wide, so that Rich does not wrap the messages that the tests read."""


@dataclass(frozen=True)
class Platform:
    """A running stack and its clients."""

    settings: Settings

    @cached_property
    def client(self) -> DagsterClient:
        return DagsterClient.from_settings(self.settings)

    @cached_property
    def lake(self) -> Lake:
        return Lake.from_settings(self.settings)

    @cached_property
    def registry(self) -> ModelRegistry:
        return ModelRegistry.from_settings(self.settings)

    @property
    def resources(self) -> dict[str, Any]:
        """What assets ask for, for runs inside the test process."""
        return {
            "settings": self.settings,
            "lake": self.lake,
            "registry": self.registry,
            "online_store": open_online_store(self.settings),
        }

    def mlops(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `mlops` command on this stack inside this process: a process of its own imports for seconds what is imported here."""
        umask = os.umask(PRIVATE_UMASK)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in self.environment.items():
                    patch.setenv(name, value)
                for each in (console, error_console):
                    # It has read COLUMNS when it was made.
                    patch.setattr(each, "width", _COLUMNS)
                result = CliRunner().invoke(app, list(arguments))
        finally:
            os.umask(umask)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(["mlops", *arguments], result.exit_code, result.stdout, result.stderr)

    def mlops_process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `mlops` command on this stack as a person does."""
        command = [str(scripts_directory() / "mlops"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=1800, check=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process works on this stack."""
        return process_environment(self.settings) | {"COLUMNS": str(_COLUMNS)}

    @property
    def headers(self) -> dict[str, str]:
        """What opens Dagster and MLflow."""
        return authorization(access_token(self.settings))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the lake."""
        with self.lake.connect(read_only=True) as connection:
            return connection.execute(query).fetchall()

    def value(self, query: str) -> Any:
        """The single value of a query on the lake."""
        [[value]] = self.rows(query)
        return value

    def fingerprints(self) -> dict[str, str]:
        """Content of every table of the lake, without the columns that say how a row got there."""
        with self.lake.connect(read_only=True) as connection:
            tables = connection.execute(
                "SELECT table_schema || '.' || table_name FROM information_schema.tables "
                "WHERE table_catalog = 'lake' AND table_type = 'BASE TABLE' ORDER BY 1"
            ).fetchall()
            return {table: fingerprint(connection, f"lake.{table}") for (table,) in tables}

    def materialize(self, keys: tuple[str, ...], first: str, last: str) -> RunState:
        """Run assets through the daemon and wait for the end."""
        assets = self.client.assets(keys)
        run_id = self.client.launch([assets[key] for key in keys], first, last, {}, purpose="test")
        return follow_run(self.client, run_id, ", ".join(keys), lambda state: None)


@contextlib.contextmanager
def temporary_platform(prefix: str) -> Iterator[Platform]:
    """A stack with a state folder and ports of its own, stopped and removed at the end of the block."""
    with new_home(prefix) as settings:
        control.ensure_up(settings)
        yield Platform(settings)


@contextlib.contextmanager
def platform_with_canaries(prefix: str) -> Iterator[Platform]:
    """A stack with a canary as every secret that a person sets, on a Postgres elsewhere that wants its password."""
    with new_home("pg.") as elsewhere, canaries.own_postgres(elsewhere) as address, new_home(prefix) as settings:
        settings = canaries.with_canaries(settings, address)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in canaries.SOURCE_SECRETS.items():
                patch.setenv(name, value)
            control.ensure_up(settings)
        yield Platform(settings)


@contextlib.contextmanager
def new_home(prefix: str = "home.") -> Iterator[Settings]:
    """An empty state folder with ports of its own. What was started in it is stopped, and it is removed, at the end of the block."""
    # Not pytest's own folder: its path is longer than a Unix socket may have.
    home = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    dagster_port, mlflow_port, nats_port, serving_port = free_ports(4)
    settings = Settings(
        home=home,
        dagster_port=dagster_port,
        mlflow_port=mlflow_port,
        nats_port=nats_port,
        serving_port=serving_port,
        sensor_seconds=_SENSOR_SECONDS,
    )
    try:
        yield settings
    finally:
        control.down(settings)
        shutil.rmtree(home)


@dataclass(frozen=True)
class Demo:
    """What `mlops demo --months 2 --json` said, and how long it took."""

    summary: dict[str, Any]
    seconds: float


@contextlib.contextmanager
def project_with_branches() -> Iterator[Project]:
    """The project, with its branches in a folder that is gone at the end of the block."""
    # Not pytest's own folder: its path is longer than a Unix socket may have.
    with tempfile.TemporaryDirectory(prefix="branched.", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        yield replace(current_project(), state_directory=Path(folder) / "s")
