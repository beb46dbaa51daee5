"""The environment variables that every process of the platform runs with, so that all of them find the same servers and state."""

import os
import sysconfig
from pathlib import Path

from mlops_assets.core.branches import BRANCHED_STORAGE_VARIABLE
from mlops_assets.core.project import PROJECT_VARIABLE, project_of_process
from mlops_assets.core.settings import DAGSTER_DATABASE, DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.core.sign_on import sign_on_variables
from mlops_assets.local.services import MLFLOW, ONLINE, SHIPPER, STREAM, WEBSERVER

_SECRET_VARIABLES = (
    "MLOPS_POSTGRES_URL",
    "MLOPS_NATS_URL",
    "MLOPS_REDIS_URL",
    "MLOPS_NOTIFY_URLS",
    "MLOPS_SERVING_TOKEN",
    "MLOPS_OPENLINEAGE_API_KEY",
    "MLOPS_OIDC_CLIENT_SECRET",
)
"""The platform's own variables that may hold a secret."""

_NEEDED_SECRETS = {
    MLFLOW: {"MLOPS_POSTGRES_URL", "MLOPS_OIDC_CLIENT_SECRET"},
    ONLINE: {"MLOPS_REDIS_URL", "MLOPS_SERVING_TOKEN"},
    STREAM: {"MLOPS_NATS_URL", "MLOPS_REDIS_URL"},
    SHIPPER: {"MLOPS_NATS_URL"},
    WEBSERVER: {"MLOPS_OIDC_CLIENT_SECRET"},
}
"""Those that a server needs. One that is not named runs code of the project or starts what does, and needs all; Postgres and NATS, whose
configuration is in files, get no variable at all.
"""


def withheld_variables(service: str) -> list[str]:
    """The variables with secrets that the process of a server gets empty, because it needs none of them."""
    needed = _NEEDED_SECRETS.get(service, set(_SECRET_VARIABLES))
    return [name for name in _SECRET_VARIABLES if name not in needed]


def scripts_directory() -> Path:
    """The folder of this Python environment's commands (`dagster`, `dbt`, `nats-server`, `supervisord`)."""
    return Path(sysconfig.get_path("scripts"))


def process_environment(settings: Settings) -> dict[str, str]:
    """The environment for a process that belongs to this installation: the caller's, with the platform's variables set.

    A variable of a server that is not set is exported empty, so that a child's own `.env` file cannot bring it back.
    `PYTHONDONTWRITEBYTECODE` is left out: without compiled bytecode every process starts two to three times slower.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.update(
        {
            "PATH": os.pathsep.join([str(scripts_directory()), environment.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
            **settings_variables(settings),
            **_project_variables(),
            "DAGSTER_HOME": str(settings.dagster_home),
            # By which the dagster.yaml of pods names the database. It holds no password.
            "DAGSTER_STORAGE_URL": settings.sqlalchemy_url(DAGSTER_DATABASE),
            "MLFLOW_TRACKING_URI": settings.mlflow_url,
            # Set to nothing, MLflow's client would verify nothing.
            **({"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authorities)} if (authorities := settings.listening.authorities) else {}),
            # The variables that the dbt profile reads.
            "MLOPS_LAKE_CATALOG": settings.postgres_connection_string(LAKE_DATABASE),
            "MLOPS_LAKE_DATA": settings.lake_location,
            "MLOPS_LAKE_BRANCHED": settings.branched_storage or "",
            "MLOPS_DUCKDB_EXTENSIONS": str(DUCKDB_EXTENSION_DIRECTORY),
            # A run over a range of partitions: materializations are stored in batches, and the plan is one event an asset
            # instead of one a partition (200 days of 14 assets: 50 s before the first step). See docs/adr/0005.
            "DAGSTER_EVENT_BATCH_SIZE": "250",
            "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "true",
            # OpenMP threads that wait do not spin: beside other work, spinning makes fitting ten times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    )
    return environment


def _project_variables() -> dict[str, str]:
    """Where the project is, for a process with another working directory."""
    project = project_of_process()
    return {PROJECT_VARIABLE: str(project.root)} if project else {}


def settings_variables(settings: Settings) -> dict[str, str]:
    """The platform's variables with which a process has the same state, servers and ports."""
    return {
        "MLOPS_HOME": str(settings.home),
        **settings.listening.variables(),
        **sign_on_variables(settings.sign_on),
        "MLOPS_POSTGRES_URL": settings.postgres_url or "",
        "MLOPS_NATS_URL": settings.nats_url or "",
        "MLOPS_MLFLOW_URL": settings.mlflow_server or "",
        "MLOPS_DAGSTER_URL": settings.dagster_server or "",
        "MLOPS_SERVING_URL": settings.serving_server or "",
        "MLOPS_STORAGE": settings.storage or "",
        BRANCHED_STORAGE_VARIABLE: settings.branched_storage or "",
        "MLOPS_ENGINE": settings.engine,
        "MLOPS_RAY_ADDRESS": settings.ray_address or "",
        "MLOPS_TASK_MEMORY_GB": str(settings.task_memory_gb),
        "MLOPS_PART_VALUES": str(settings.part_values or ""),
        "MLOPS_REDIS_URL": settings.redis_url or "",
        "MLOPS_NOTIFY_URLS": " ".join(settings.notify_urls),
        "MLOPS_DAGSTER_PORT": str(settings.dagster_port),
        "MLOPS_MLFLOW_PORT": str(settings.mlflow_port),
        "MLOPS_NATS_PORT": str(settings.nats_port),
        "MLOPS_SERVING_PORT": str(settings.serving_port),
        "MLOPS_SERVING_PROCESSES": str(settings.serving_processes),
        "MLOPS_SERVING_TOKEN": settings.serving_token or "",
        "MLOPS_SENSOR_SECONDS": str(settings.sensor_seconds or ""),
        "MLOPS_WARM_RUNS": "on" if settings.warm_runs else "off",
        "MLOPS_STEPS": settings.steps,
        "MLOPS_DURABILITY": settings.durability,
        "MLOPS_BACKUP_FOLDER": str(settings.backup_folder or ""),
        "MLOPS_BACKUP_RECIPIENTS": " ".join(settings.backup_recipients),
        "MLOPS_OPENLINEAGE_URL": settings.openlineage_url or "",
        "MLOPS_OPENLINEAGE_API_KEY": settings.openlineage_api_key or "",
    }
