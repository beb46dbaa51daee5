"""The MLflow server as one process: `python -m mlops_assets.local.mlflow_server`.

`mlflow server` starts the web application in a child process and keeps a second copy of MLflow in memory to wait for it; when
that parent is killed, the child keeps the port and no supervisor can restart the server. This runs the same application, set
up by the same variables, in the process that supervisor watches: half the memory, and a kill is followed by a restart.
"""

import os
from collections.abc import Sequence

from mlops_assets.access.environment_banner import EnvironmentBanner
from mlops_assets.access.guard import AccessGuard
from mlops_assets.access.identities import identities
from mlops_assets.access.protocol import serve
from mlops_assets.access.sign_in import signing_in
from mlops_assets.core.environment_files import environment_name
from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.object_storage import StoreAccess
from mlops_assets.core.settings import MLFLOW_DATABASE, Settings
from mlops_assets.local.doors import MlflowDoor


def main() -> None:
    """Initialise the tracking database, then serve until told to stop. Artifacts are stored and served by the server itself."""
    name_lines()
    settings = Settings.from_environment()
    # Own names only, at any port so that a tunnel works: what a web page elsewhere makes a browser send is refused. The guard knows the port.
    names = settings.listening.own_names
    origins = [f"{settings.listening.scheme(name)}://{name}" for name in names]
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = _at_any_port(names)
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = _at_any_port(origins)
    # The job runner is for evaluations by language models; it would start four more processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

    from mlflow.server import constants

    store = settings.sqlalchemy_url(MLFLOW_DATABASE)
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = store
    if settings.storage:
        os.environ["MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"] = StoreAccess.from_environment(os.environ).style
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = settings.mlflow_artifact_location
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"

    from mlflow.server.handlers import initialize_backend_stores

    # Before the first request: two requests that initialise an empty database at once would collide.
    initialize_backend_stores(store, store, "mlflow-artifacts:/")
    from mlflow.server.fastapi_app import app

    sessions, sign_in = signing_in(settings, "MLflow")
    guard = AccessGuard(
        MlflowDoor(app, settings.audit_log),
        name="MLflow",
        identities=identities(settings, "MLflow", sessions),
        listening=settings.listening,
        command="mlops open mlflow",
        file=settings.access_token_file.name,
        sign_in=sign_in,
    )
    serve(EnvironmentBanner(guard, environment_name()), settings.listening, settings.mlflow_port)


def _at_any_port(hosts: Sequence[str]) -> str:
    return ",".join(form for host in hosts for form in (host, f"{host}:*"))


if __name__ == "__main__":
    main()
