"""A Dagster instance with the launcher and the coordinator of the platform, and origins for runs that are queued. No tests here."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ModuleCodePointer
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import instance_for_test

# A run is queued only when it says where its code is.
REMOTE = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", 1, location_name="code"), "all"), "some"
)
CODE = JobPythonOrigin(
    "some", RepositoryPythonOrigin("python", ModuleCodePointer("code", "all"), entry_point=DEFAULT_DAGSTER_ENTRY_POINT)
)


@contextlib.contextmanager
def run_instance(directory: Path) -> Iterator[DagsterInstance]:
    """An instance on SQLite, configured as the local stack's; the workers' files are in `directory`."""
    overrides = {
        "run_launcher": {
            "module": "mlops_assets.runs.launcher",
            "class": "WorkerLauncher",
            "config": {"directory": str(directory)},
        },
        "run_coordinator": {"module": "mlops_assets.runs.coordinator", "class": "SlotsRunCoordinator"},
        "run_retries": {"enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": False},
    }
    with instance_for_test(overrides=overrides) as instance:
        yield instance
