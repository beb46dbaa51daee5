"""The move of the alias `champion`, by the client of MLflow or over the registry's REST interface alone."""

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Protocol

from mlops_assets.clients.aliases import CHALLENGER, CHAMPION, PREVIOUS, segment_alias
from mlops_assets.clients.champion import ask_registry, registered_version
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.errors import StackError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings

_PATH = "registered-models/alias"


class AliasRegistry(Protocol):
    """The aliases of the versions of all solutions."""

    def by_alias(self, solution: str, alias: str) -> RegisteredModel | None:
        """The version that carries `alias`, or None."""
        ...

    def set_alias(self, solution: str, alias: str, version: int) -> None:
        """Give `alias` to `version`; no other version keeps it."""
        ...

    def remove_alias(self, solution: str, alias: str) -> None:
        """Take `alias` from whichever version has it, if any."""
        ...


@dataclass(frozen=True)
class RestAliases:
    """The aliases over REST: importing MLflow's own client takes seconds. Raises RegistryUnreachableError when the server stays away."""

    settings: Settings

    def by_alias(self, solution: str, alias: str) -> RegisteredModel | None:
        """The version that carries `alias`, or None."""
        return registered_version(self.settings, solution, alias)

    def set_alias(self, solution: str, alias: str, version: int) -> None:
        """Give `alias` to `version`. Raises StackError when the registry refuses."""
        self._change("POST", name=solution, alias=alias, version=str(version))

    def remove_alias(self, solution: str, alias: str) -> None:
        """Take `alias` from whichever version has it, if any. Raises StackError when the registry refuses."""
        self._change("DELETE", name=solution, alias=alias)

    def _change(self, method: str, **content: str) -> None:
        response = patiently(partial(ask_registry, self.settings, method, _PATH, json=content))
        if response.status_code != HTTPStatus.OK:
            raise StackError(
                f"The model registry refused to change the alias {content['alias']}: {response.text[:500]}",
                remedy="mlops logs mlflow",
            )


def make_champion(registry: AliasRegistry, model: RegisteredModel, *, segment: str | None, before: int | None) -> None:
    """Make `model` the champion (of `segment`) after version `before`, which becomes `previous`; it is no challenger any more.

    The solution's own model leaves a segment without a champion of its own.
    """
    if before is not None and before != model.version:
        registry.set_alias(model.solution, segment_alias(PREVIOUS, segment), before)
    if model.segment == segment:
        registry.set_alias(model.solution, segment_alias(CHAMPION, segment), model.version)
        remove_challenger(registry, model)
    else:
        registry.remove_alias(model.solution, segment_alias(CHAMPION, segment))


def remove_challenger(registry: AliasRegistry, model: RegisteredModel) -> None:
    """Let `model` be no challenger any more."""
    alias = segment_alias(CHALLENGER, model.segment)
    challenger = registry.by_alias(model.solution, alias)
    if challenger is not None and challenger.version == model.version:
        registry.remove_alias(model.solution, alias)
