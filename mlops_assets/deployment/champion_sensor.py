"""The sensor that notices a champion which somebody set by hand in MLflow, past the deployment asset.

It launches the deployment that records the change, so that the history tells what was live, or that restores the former champion
when there is no evidence that the chosen version passed its gates. The champions of segments are looked after like that of the solution.
"""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.bundle_record import accepted_record
from mlops_assets.clients.champion import RegistryUnreachableError, registered_aliases, registered_champion
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import job_name
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.core.shared_sensors import look_at_each, read_cursor, tick_result
from mlops_assets.deployment.approval import approval_problem
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
    if _is_deploying(instance, target) or target.newest_deployment(instance) != recorded:
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
    configuration = {"version": version, "actor": _ACTOR, "reason": reason}
    return dg.RunRequest(
        # One run for one state of affairs: a second tick asks for the same run, which Dagster does not launch again.
        run_key=f"{registered.version if registered else None}-{recorded.storage_id}",
        job_name=job_name(*target.key.path),
        asset_selection=[target.key],
        partition_key=partition,
        run_config={"ops": {target.key.to_python_identifier(): {"config": configuration}}},
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
