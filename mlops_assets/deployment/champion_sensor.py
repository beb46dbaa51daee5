"""The sensor that notices a champion which somebody set by hand in MLflow, past the deployment asset.

It launches the deployment that records the change, so that the history tells what was live, or that restores the former champion
when there is no evidence that the chosen version passed its gates. It also has the switches recorded whose maker died. The champions of
segments are looked after like that of the solution.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import ROOT_RUN_ID_TAG

from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.bundle_record import accepted_record
from mlops_assets.clients.champion import RegistryUnreachableError, registered_aliases, registered_champion, registered_number
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import job_name
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.core.shared_sensors import look_at_each, read_cursor, tick_result
from mlops_assets.deployment.approval import approval_problem
from mlops_assets.deployment.recording import recorded_switches
from mlops_assets.deployment.switch_journal import SWITCH_TAG, Switch, SwitchJournal
from mlops_assets.runs.unfinished import UNFINISHED
from mlops_assets.training.acceptance import gates_problem

NAME = "champions"
_INTERVAL_SECONDS = 30
_ACTOR = "mlflow"
_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def build_champion_sensor(
    targets: Sequence[DeploymentTarget], jobs: Iterable[UnresolvedAssetJobDefinition]
) -> dg.SensorDefinition:
    """The sensor of all `targets`, whose deployments are among `jobs`. It asks for nothing while registry and newest deployments agree.

    What agreed is looked at again when its alias or its newest deployment is another one: a tick in which nothing happened is one
    request to the registry and one query of the event log.
    """
    keys = list(dict.fromkeys(target.key for target in targets))
    deployments = {job_name(*key.path) for key in keys}
    by_name = {_name(target): target for target in targets}

    @dg.sensor(
        name=NAME,
        description="Reconciles champions that were set by hand in MLflow with the history of deployments.",
        # The jobs of whoever deploys: this sensor, `mlops promote` and `mlops rollback`.
        jobs=[job for job in jobs if job.name in deployments],
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def champions(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        try:
            aliases = registered_aliases(settings)
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        deployments = _newest_deployments(context.instance, keys)
        before = read_cursor(context)
        agreed: dict[str, list[int | None]] = {}

        def look(name: str, target: DeploymentTarget) -> dg.RunRequest | str:
            if (unrecorded := _have_recorded(context.instance, settings, target)) is not None:
                return unrecorded
            alias = segment_alias(CHAMPION, target.segment)
            state = [aliases.get(target.solution, {}).get(alias), deployments.get(target.key)]
            if state[1] is None:
                return "nothing was deployed yet"
            outcome = "as it was deployed" if before.get(name) == state else _reconcile(context.instance, settings, target)
            if isinstance(outcome, str):
                agreed[name] = state
            return outcome or "a deployment is in progress"

        try:
            requests, reason = look_at_each(by_name, look)
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        return tick_result(requests, reason, agreed)

    return champions


def _name(target: DeploymentTarget) -> str:
    return target.solution if target.segment is None else f"{target.solution} {target.segment}"


def _newest_deployments(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> Mapping[dg.AssetKey, int | None]:
    """The identity of the newest materialization of each asset; those that have none are left out."""
    records = instance.get_asset_records(list(keys))
    return {record.asset_entry.asset_key: record.asset_entry.last_materialization_storage_id for record in records}


def _have_recorded(instance: dg.DagsterInstance, settings: Settings, target: DeploymentTarget) -> dg.RunRequest | str | None:
    """The run that records switches whose own run is not there, or a phrase while it is to come; None when all are recorded.

    Whoever made a switch died, or its run was canceled. The run of the newest one finishes and records those before it.
    """
    journal = SwitchJournal.of(settings, target.solution)
    if not journal.pending(target.segment):
        return None
    if not (pending := journal.pending(target.segment, recorded_switches(instance, target))):
        return None
    newest = pending[-1]
    switch = newest.switch
    if newest.is_held() or _is_recording(instance, switch):
        return "a deployment is in progress"
    model = registered_number(settings, target.solution, switch.version)
    if model is None:
        return f"version {switch.version}, which was deployed, is not in the registry any more"
    tags = {SWITCH_TAG: switch.id}
    tries = len(instance.get_run_records(dg.RunsFilter(tags=tags)))
    return dg.RunRequest(
        # A run that failed is followed by another one.
        run_key=f"{switch.id}-{tries}",
        job_name=job_name(*target.key.path),
        asset_selection=[target.key],
        partition_key=target.partition_key(model.tags[TRAINING_DATE_TAG]),
        tags=tags,
        run_config=_run_config(target, switch.version, switch.actor, switch.reason),
    )


def _is_recording(instance: dg.DagsterInstance, switch: Switch) -> bool:
    """Whether a run that is to record the switch has not ended, or that which tries again is to come."""
    ways = [{SWITCH_TAG: switch.id}] if switch.run_id is None else [{SWITCH_TAG: switch.id}, {ROOT_RUN_ID_TAG: switch.run_id}]
    if any(instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED), limit=1) for tags in ways):
        return True
    run = None if switch.run_id is None else instance.get_run_by_id(switch.run_id)
    return run is not None and not run.is_finished


def _run_config(target: DeploymentTarget, version: int, actor: str, reason: str) -> dict[str, Any]:
    configuration = {"version": version, "actor": actor, "reason": reason}
    return {"ops": {target.key.to_python_identifier(): {"config": configuration}}}


def _reconcile(instance: dg.DagsterInstance, settings: Settings, target: DeploymentTarget) -> dg.RunRequest | str | None:
    """The run that brings history and registry together; a phrase when they agree, None while a deployment moves one after the other."""
    recorded = target.newest_deployment(instance)
    if recorded is None:
        return "nothing was deployed yet"
    deployed = recorded.version
    expected = None if recorded.is_left_to_solution else deployed
    registered = registered_champion(settings, target.solution, target.segment)
    if (registered.version if registered else None) == expected:
        return f"version {deployed} is deployed and is the champion"
    # A switch is written down before the alias is moved, until it is recorded.
    is_switching = bool(SwitchJournal.of(settings, target.solution).pending(target.segment))
    if is_switching or _is_deploying(instance, target) or target.newest_deployment(instance) != recorded:
        return None
    refused = None if registered is None else _refusal(instance, settings, target, registered)
    if registered is not None and refused is None:
        version, partition = registered.version, target.partition_key(registered.tags[TRAINING_DATE_TAG])
        reason = f"the alias champion was moved by hand from version {deployed}"
    else:
        version, partition = deployed, recorded.partition
        reason = (
            f"restored: the alias champion was moved by hand to version {registered.version}. {refused}"
            if registered
            else "restored: the alias champion was removed by hand"
        )
    return dg.RunRequest(
        # One run for one state of affairs: a second tick asks for the same run, which Dagster does not launch again.
        run_key=f"{registered.version if registered else None}-{recorded.storage_id}",
        job_name=job_name(*target.key.path),
        asset_selection=[target.key],
        partition_key=partition,
        run_config=_run_config(target, version, _ACTOR, reason),
    )


def _is_deploying(instance: dg.DagsterInstance, target: DeploymentTarget) -> bool:
    """Whether a run is in progress whose deployment has not ended: it moves the alias first, and is recorded later.

    A step that seems not to have begun counts: its events are stored in batches.
    """
    step = target.key.to_python_identifier()
    for run in instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS)):
        plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id) if run.execution_plan_snapshot_id else None
        if plan is not None and step in plan.step_keys_to_execute:
            stats = instance.get_run_step_stats(run.run_id, [step])
            if not any(each.end_time for each in stats):
                return True
    return False


def _refusal(
    instance: dg.DagsterInstance, settings: Settings, target: DeploymentTarget, registered: RegisteredModel
) -> str | None:
    """The reason why `registered` may not become the champion of `target`, or None."""
    if registered.segment != target.segment:
        return f"{registered} was trained for {registered.segment or 'all rows'}, not for {target.segment or 'all rows'}."
    signer = Signer(settings.signing_key_file)
    if (problem := gates_problem(instance, signer, registered)) or not target.needs_approval:
        return problem
    record, _ = accepted_record(signer, registered)
    return approval_problem(instance, settings, registered, record)
