"""The champion in the model registry, over its REST interface: importing MLflow's own client takes seconds."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlops_assets.access.credentials import access_token, authorization
from mlops_assets.access.tls import verification
from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.errors import AwayError
from mlops_assets.core.settings import Settings

if TYPE_CHECKING:
    from requests import Response

_TIMEOUT_SECONDS = 10
_PAGE = 1000
"""The most models that the registry lists in one answer."""

Aliases = Mapping[str, Mapping[str, int]]
"""Solution -> alias -> version."""


class RegistryUnreachableError(AwayError):
    """The model registry does not answer, or answers with an error of its own."""


class RegistryRefusesError(RegistryUnreachableError):
    """The model registry knows another token: that of another environment, where no setting is wrong but its address."""


def registered_champion(settings: Settings, solution: str, segment: str | None = None) -> RegisteredModel | None:
    """The champion of `solution` (of its `segment`), or None when it has none. Raises RegistryUnreachableError."""
    return registered_version(settings, solution, segment_alias(CHAMPION, segment))


def registered_version(settings: Settings, solution: str, alias: str) -> RegisteredModel | None:
    """The version of `solution` that carries `alias`, or None when there is none. Raises RegistryUnreachableError."""
    return _version(solution, _get(settings, "registered-models/alias", name=solution, alias=alias))


def registered_number(settings: Settings, solution: str, number: int) -> RegisteredModel | None:
    """The version `number` of `solution`, or None when there is none. Raises RegistryUnreachableError."""
    return _version(solution, _get(settings, "model-versions/get", name=solution, version=number))


def _version(solution: str, response: "Response") -> RegisteredModel | None:
    if not response.ok:
        return None
    version = response.json()["model_version"]
    return RegisteredModel(
        solution=solution,
        version=int(version["version"]),
        run_id=str(version.get("run_id")),
        tags={tag["key"]: tag["value"] for tag in version.get("tags", [])},
    )


def registered_aliases(settings: Settings) -> Aliases:
    """The aliases of all solutions, by one request for a thousand of them. Raises RegistryUnreachableError."""
    aliases: dict[str, dict[str, int]] = {}
    page = ""
    while True:
        response = _get(settings, "registered-models/search", max_results=_PAGE, page_token=page)
        if not response.ok:
            raise RegistryUnreachableError(
                f"The model registry answers with status {response.status_code} to a search of models."
            )
        answer = response.json()
        for model in answer.get("registered_models", []):
            aliases[model["name"]] = {entry["alias"]: int(entry["version"]) for entry in model.get("aliases", [])}
        page = answer.get("next_page_token", "")
        if not page:
            return aliases


def _get(settings: Settings, path: str, **parameters: Any) -> "Response":
    return ask_registry(settings, "GET", path, params=parameters)


def ask_registry(settings: Settings, method: str, path: str, **content: Any) -> "Response":
    """The answer of the registry to a request, whatever its status below 500. Raises RegistryUnreachableError."""
    import requests

    try:
        response = requests.request(
            method,
            f"{settings.mlflow_url}/api/2.0/mlflow/{path}",
            **content,
            headers=authorization(access_token(settings)),
            timeout=_TIMEOUT_SECONDS,
            verify=verification(settings.listening),
        )
    except requests.RequestException as error:
        raise RegistryUnreachableError(f"The model registry does not answer at {settings.mlflow_url}: {error}") from error
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise RegistryRefusesError(
            f"The model registry answers with status {response.status_code} at {settings.mlflow_url}: "
            "it refuses the token of this environment."
        )
    if response.status_code >= 500:
        raise RegistryUnreachableError(f"The model registry answers with status {response.status_code} at {settings.mlflow_url}.")
    return response
