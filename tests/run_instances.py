"""A Dagster instance with the launcher and the coordinator of the platform, and origins for runs that are queued. No tests here."""

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
