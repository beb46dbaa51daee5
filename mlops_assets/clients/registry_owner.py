"""The environment that a model registry is of, which a tag of MLflow's default experiment names."""

from typing import TYPE_CHECKING

from mlops_assets.clients.champion import RegistryUnreachableError, ask_registry
from mlops_assets.core.settings import Settings

if TYPE_CHECKING:
    from requests import Response

_DEFAULT_EXPERIMENT = "0"
_TAG = "mlops_environment"


def claim_registry(settings: Settings, environment: str) -> str:
    """Write down that the registry is of `environment`, where it is of none. Returns the one that it is of. Raises RegistryUnreachableError."""
    owner = _owner(settings)
    if owner is None:
        content = {"experiment_id": _DEFAULT_EXPERIMENT, "key": _TAG, "value": environment}
        _required(ask_registry(settings, "POST", "experiments/set-experiment-tag", json=content))
        owner = _owner(settings)
    return owner or environment


def _owner(settings: Settings) -> str | None:
    answer = _required(ask_registry(settings, "GET", "experiments/get", params={"experiment_id": _DEFAULT_EXPERIMENT}))
    tags = answer.json()["experiment"].get("tags", [])
    return next((str(tag["value"]) for tag in tags if tag["key"] == _TAG), None)


def _required(answer: "Response") -> "Response":
    if not answer.ok:
        raise RegistryUnreachableError(f"The model registry answers with status {answer.status_code} to its default experiment.")
    return answer
