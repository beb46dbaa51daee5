"""Dagster instances: with the platform's launcher and coordinator, with its storage; origins for runs that are queued. No tests here."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import yaml
from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ModuleCodePointer
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import instance_for_test

from mlops_assets.core.settings import Settings
from mlops_assets.local import configuration

# A run is queued only when it says where its code is.
REMOTE = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", 1, location_name="code"), "all"), "some"
)
CODE = JobPythonOrigin(
    "some", RepositoryPythonOrigin("python", ModuleCodePointer("code", "all"), entry_point=DEFAULT_DAGSTER_ENTRY_POINT)
)


@contextlib.contextmanager
def run_instance(directory: Path) -> Iterator[DagsterInstance]:
    """An instance on SQLite that launches, queues and retries as the local stack does; its state folder is `directory`."""
    settings = Settings(home=directory)
    configured = yaml.safe_load(configuration.render_files(settings)[settings.dagster_home / "dagster.yaml"])
    sections = ("run_launcher", "run_coordinator", "run_retries", "run_monitoring", "concurrency")
    with instance_for_test(overrides={section: configured[section] for section in sections}) as instance:
        yield instance


@contextlib.contextmanager
def stored_instance(database: str, directory: Path) -> Iterator[DagsterInstance]:
    """An instance that stores its runs and events in a database of a real Postgres as the local stack does.

    `database` is a connection string of libpq with a folder as the host.
    """
    values = dict(part.split("=") for part in database.split())
    url = f"postgresql+psycopg2://postgres@/{values['dbname']}?host={values['host']}"
    storage = {"module": "mlops_assets.runs.event_storage", "class": "EventStorage", "config": {"postgres_url": url}}
    compute_logs = {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": str(directory / "compute_logs")},
    }
    content = {"storage": {"custom": storage}, "compute_logs": compute_logs, "telemetry": {"enabled": False}}
    (directory / "dagster.yaml").write_text(yaml.safe_dump(content))
    with DagsterInstance.from_config(str(directory)) as instance:
        yield instance
