"""The champion in the model registry, over its REST interface: importing MLflow's own client takes seconds."""

from http import HTTPStatus

from mlops_assets.access.credentials import access_token, authorization
from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.settings import Settings

_TIMEOUT_SECONDS = 10


class RegistryUnreachableError(Exception):
    """The model registry does not answer, or answers with an error of its own."""


def registered_champion(settings: Settings, solution: str, segment: str | None = None) -> RegisteredModel | None:
    """The champion of `solution` (of its `segment`), or None when it has none. Raises RegistryUnreachableError."""
    return registered_version(settings, solution, segment_alias(CHAMPION, segment))


def registered_version(settings: Settings, solution: str, alias: str) -> RegisteredModel | None:
    """The version of `solution` that carries `alias`, or None when there is none. Raises RegistryUnreachableError."""
    import requests

    address = f"{settings.mlflow_url}/api/2.0/mlflow/registered-models/alias"
    try:
        response = requests.get(
            address,
            params={"name": solution, "alias": alias},
            headers=authorization(access_token(settings)),
            timeout=_TIMEOUT_SECONDS,
        )
    except requests.RequestException as error:
        raise RegistryUnreachableError(f"The model registry does not answer at {settings.mlflow_url}: {error}") from error
    if response.status_code >= 500 or response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise RegistryUnreachableError(f"The model registry answers with status {response.status_code} at {settings.mlflow_url}.")
    if not response.ok:
        return None
    version = response.json()["model_version"]
    return RegisteredModel(
        solution=solution,
        version=int(version["version"]),
        run_id=str(version.get("run_id")),
        tags={tag["key"]: tag["value"] for tag in version.get("tags", [])},
    )
