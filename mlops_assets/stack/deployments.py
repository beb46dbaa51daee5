"""What was in production, and changing it: the history of a solution's deployments, promotion and rollback through Dagster runs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mlops_assets.resources.model_registry import TRAINING_DATE_TAG, ModelRegistry, RegistryError
from mlops_assets.settings import Settings
from mlops_assets.stack.dagster_client import AssetState, DagsterClient, Materialization, RunState
from mlops_assets.stack.errors import StackError
from mlops_assets.stack.runs import follow

_LIMIT = 1000
"""The most deployments a history reads."""


@dataclass(frozen=True)
class Deployment:
    """One version in production from `since` to `until` (None: it is live), who put it there, why, and by which run."""

    version: int
    since: datetime
    until: datetime | None
    training_date: str | None
    version_before: int | None
    actor: str
    reason: str
    gates: str
    run_id: str
    run_url: str


def history(client: DagsterClient, solution: str) -> list[Deployment]:
    """Every deployment of `solution` that changed the champion, newest first. Raises StackError when there is no such solution."""
    asset = _deployment_asset(client, solution)
    found: list[Deployment] = []
    until = None
    for event in client.materializations(asset.key, _LIMIT):
        if event.metadata["changed"]:
            found.append(_deployment(client, event, until))
            until = event.at
    return found


def version_with_alias(registry: ModelRegistry, solution: str, alias: str) -> int:
    """The version that carries `alias`. Raises StackError when none does."""
    found = registry.by_alias(solution, alias)
    if found is None:
        raise StackError(
            f"No version of {solution} has the alias {alias}.", remedy=f"Name one with --to; mlops history {solution} lists them."
        )
    return found.version


def deploy(
    settings: Settings, solution: str, *, version: int, actor: str, reason: str, report: Callable[[RunState], None]
) -> Deployment:
    """Materialize the deployment of `version` and wait for it; returns the deployment that is live then.

    Raises StackError when the version does not exist, or the run refuses it.
    """
    client = DagsterClient(settings.dagster_url)
    asset = _deployment_asset(client, solution)
    try:
        model = ModelRegistry.from_settings(settings).get(solution, version)
    except RegistryError as error:
        raise StackError(str(error), remedy=f"mlops history {solution}") from error
    training_date = model.tags[TRAINING_DATE_TAG]
    configuration = {asset.key: {"version": version, "actor": actor, "reason": reason}}
    run_id = client.launch([asset], training_date, training_date, configuration)
    follow(client, run_id, f"the deployment of version {version}", report)
    return history(client, solution)[0]


def _deployment_asset(client: DagsterClient, solution: str) -> AssetState:
    asset = client.assets().get(f"{solution}/deployment")
    if asset is None:
        raise StackError(f"There is no solution {solution!r}.", remedy="mlops status lists them.")
    return asset


def _deployment(client: DagsterClient, event: Materialization, until: datetime | None) -> Deployment:
    values = event.metadata
    return Deployment(
        version=values["model_version"],
        since=event.at,
        until=until,
        training_date=event.partition,
        version_before=values["version_before"],
        actor=values["actor"],
        reason=values["reason"],
        gates=values["gates"],
        run_id=event.run_id,
        run_url=client.run_url(event.run_id),
    )
