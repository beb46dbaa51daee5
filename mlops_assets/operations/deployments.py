"""Deployments of a solution: their history, promotion and rollback. A return to a version is done at once, and recorded by a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import requests

from mlops_assets.access.credentials import access_token, authorization
from mlops_assets.access.tls import verification
from mlops_assets.clients.aliases import segment_alias
from mlops_assets.clients.asset_state import AssetState
from mlops_assets.clients.champion import registered_champion, registered_number, registered_version
from mlops_assets.clients.dagster_client import DagsterClient, Materialization, RunState, model_partition, partition_parts
from mlops_assets.clients.registered_model import APPROVED_BY, COPIED_FROM_TAG, TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.core.errors import StackError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.switch_journal import SWITCH_TAG, SWITCHED_AT, Switch
from mlops_assets.deployment.switching import Evidence, switched_at_once
from mlops_assets.operations.runs import follow_run

_LIMIT = 1000
"""The most deployments a history reads."""
_RECENT = 100
"""The newest events in which a version that predicted before is looked for; an older one is left to the run."""

_PROBE_SECONDS = 5
"""How long the registry and Dagster may take to say that they are there."""


@dataclass(frozen=True)
class Deployment:
    """One version in production from `since` to `until` (None: it is live), who put it there and approved it, why, and by which run.

    With `segment` it predicted the rows of that segment alone. `recalibration` tells of a recalibrated version whose it is,
    `copied_from` of one of another environment which.
    """

    version: int
    segment: str | None
    since: datetime
    until: datetime | None
    training_date: str | None
    version_before: int | None
    actor: str
    approved_by: str | None
    reason: str
    gates: str
    recalibration: str | None
    copied_from: str | None
    run_id: str
    run_url: str


def deployment_history(client: DagsterClient, solution: str, segment: str | None = None) -> list[Deployment]:
    """Every deployment of `solution` that changed the champion (of `segment`), newest first.

    Raises StackError when there is no such solution, or it has no models by segment.
    """
    return _history(client, _deployment_asset(client, solution, segment), segment)


def _history(client: DagsterClient, asset: AssetState, segment: str | None) -> list[Deployment]:
    """The deployments of `asset` that changed the champion (of `segment`), newest first."""
    found: list[Deployment] = []
    until = None
    for event in client.materializations(asset.key, _LIMIT):
        deployment = _deployment(client, event, until)
        if event.metadata["changed"] and deployment.segment == segment:
            found.append(deployment)
            until = deployment.since
    return found


def deployment_at(deployments: Sequence[Deployment], version: int, answered_at: datetime | None) -> Deployment | None:
    """The one of `deployments` (newest first) under which `version` answered at a moment; None when it was never deployed.

    Of an unknown moment it is the version's newest. A switch is noted just after the servers may follow it, so that the moment may be
    before the version's first one.
    """
    of_version = [each for each in deployments if each.version == version]
    begun = [each for each in of_version if answered_at is None or each.since <= answered_at]
    return next(iter(begun or of_version[-1:]), None)


def ensure_asked(settings: Settings) -> None:
    """Have the registry and Dagster answer: a switch needs no other server, and looking at all of them takes longer than it.

    Raises StackError when the stack, of which they are a part, cannot be started.
    """
    pages = (f"{settings.mlflow_url}/health", f"{settings.dagster_url}/server_info")
    if not (settings.signing_key_file.exists() and all(_answers(settings, page) for page in pages)):
        _ensure_up(settings)


def _answers(settings: Settings, url: str) -> bool:
    try:
        headers, verify = authorization(access_token(settings)), verification(settings.listening)
        return requests.get(url, headers=headers, verify=verify, timeout=_PROBE_SECONDS).ok
    except requests.RequestException:
        return False


def _ensure_up(settings: Settings) -> None:
    from mlops_assets.local import control

    control.ensure_up(settings)


def version_with_role(settings: Settings, solution: str, role: str, segment: str | None) -> int:
    """The version that is the challenger or the previous champion (of `segment`). Raises StackError when none is."""
    alias = segment_alias(role, segment)
    found = patiently(partial(registered_version, settings, solution, alias))
    if found is None:
        # The registry does not tell a solution without versions from none.
        _deployment_asset(DagsterClient.from_settings(settings), solution, segment)
        raise StackError(
            f"No version of {solution} has the alias {alias}.", remedy=f"Name one with --to; mlops history {solution} lists them."
        )
    if segment is not None and found.segment is None:
        # Before its first champion the segment was predicted by the solution's, whichever that is by now.
        champion = patiently(partial(registered_champion, settings, solution))
        return found.version if champion is None else champion.version
    return found.version


def deploy(
    settings: Settings,
    solution: str,
    *,
    version: int,
    segment: str | None,
    actor: str,
    reason: str,
    approve: bool | None,
    report: Callable[[str], None],
) -> Deployment | None:
    """Deploy `version` (for `segment`), and wait until it is recorded; returns the deployment that is live then.

    A version that predicted before predicts again at once, which `report` hears; a run only records it.

    With `approve` it is that of a version which waits for approval, or its refusal. None where the version waits, or is refused.
    Raises StackError when the version does not exist, or the run refuses it.
    """
    client = DagsterClient.from_settings(settings)
    asset = _deployment_asset(client, solution, segment)
    model = patiently(partial(registered_number, settings, solution, version))
    if model is None:
        raise StackError(f"{solution} has no version {version} in the model registry.", remedy=f"mlops history {solution}")
    partition = model_partition(model.tags[TRAINING_DATE_TAG], segment)
    if partition not in client.partition_keys(asset.key):
        raise StackError(f"{solution} has no partition {partition}.", remedy="Its partitions are listed in Dagster.")
    configuration: dict[str, object] = {"version": version, "actor": actor, "reason": reason}
    if approve is not None:
        configuration["approve"] = approve
    launch = partial(
        _launch,
        settings,
        client,
        [asset],
        partition,
        partition,
        {asset.key: configuration},
        purpose=f"deployment of version {version}",
    )
    name = f"the deployment of version {version}"
    if approve is not None:
        follow_run(client, launch(), name, _ignore)
    else:
        evidence = _evidence(client, asset, model, segment)
        with switched_at_once(settings, model, segment, evidence, actor=actor, reason=reason) as switch:
            if switch is None:
                run_id = launch()
            else:
                report(f"Version {version} predicts. Recording it")
                run_id = _launch_record(switch, launch)
        follow_run(client, run_id, name, _ignore)
    newest = next(iter(_history(client, asset, segment)), None)
    return newest if newest is not None and newest.version == version else None


def _evidence(client: DagsterClient, asset: AssetState, model: RegisteredModel, segment: str | None) -> Evidence:
    """What the event log has about the place that `model` comes to, and about its evaluation."""
    deployments = [
        event for event in client.materializations(asset.key, _RECENT) if partition_parts(str(event.partition))[1] == segment
    ]
    evaluation = f"{model.solution}/{'evaluation' if model.segment is None else 'segment_evaluation'}"
    partition = model_partition(model.tags[TRAINING_DATE_TAG], model.segment)
    return Evidence(deployments, client.materializations(evaluation, _RECENT, partition))


def _launch(settings: Settings, client: DagsterClient, *arguments: Any, **keywords: Any) -> str:
    """Launch a run, once there is all that executes it."""
    _ensure_up(settings)
    return client.launch(*arguments, **keywords)


def _ignore(state: RunState) -> None:
    """A run of one step has no progress to show."""


def _launch_record(switch: Switch, launch: Callable[..., str]) -> str:
    """Launch the run that records what was switched. Raises StackError when Dagster does not."""
    try:
        return launch(tags={SWITCH_TAG: switch.id})
    except StackError as error:
        raise StackError(
            f"Version {switch.version} predicts, but Dagster could not be asked to record it yet. {error.problem}",
            remedy=f"{error.remedy}. Its sensor `champions` records it as soon as it runs: mlops history {switch.solution}",
        ) from error


def _deployment_asset(client: DagsterClient, solution: str, segment: str | None) -> AssetState:
    deployment, of_segments = f"{solution}/deployment", f"{solution}/segment_deployment"
    assets = client.assets((deployment, of_segments))
    if deployment not in assets:
        raise StackError(f"There is no solution {solution!r}.", remedy="mlops status lists them.")
    asset = assets.get(of_segments if segment else deployment)
    if asset is None:
        raise StackError(f"{solution} has no models by segment.", remedy="State `segments` in its defs.yaml, then: mlops reload")
    return asset


def _deployment(client: DagsterClient, event: Materialization, until: datetime | None) -> Deployment:
    values = event.metadata
    training_date, segment = partition_parts(str(event.partition))
    return Deployment(
        version=values["model_version"],
        segment=segment,
        # It is recorded after the switch. Older deployments have no such metadata.
        since=datetime.fromisoformat(values[SWITCHED_AT]) if SWITCHED_AT in values else event.at,
        until=until,
        training_date=training_date,
        version_before=values["version_before"],
        actor=values["actor"],
        approved_by=values.get(APPROVED_BY),
        reason=values["reason"],
        gates=values["gates"],
        # Older deployments have no such metadata.
        recalibration=values.get("recalibration"),
        copied_from=values.get(COPIED_FROM_TAG),
        run_id=event.run_id,
        run_url=client.run_url(event.run_id),
    )
