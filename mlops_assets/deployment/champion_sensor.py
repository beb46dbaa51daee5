"""The sensor that notices a champion which somebody set by hand in MLflow, past the deployment asset.

It launches the deployment that records the change, so that the history tells what was live, or that restores the former champion
when there is no evidence that the chosen version passed its gates. The champions of segments are looked after like that of the solution.
"""

from collections.abc import Sequence

import dagster as dg

from mlops_assets.clients.champion import RegistryUnreachableError, registered_champion
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import job_name
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.training.acceptance import gates_problem

_INTERVAL_SECONDS = 30
_ACTOR = "mlflow"


def build_champion_sensor(targets: Sequence[DeploymentTarget]) -> dg.SensorDefinition:
    """The sensor of `targets` with one deployment asset. It asks for nothing while the registry agrees with the newest deployments."""
    [key] = {target.key for target in targets}

    solution, stage = key.path

    @dg.sensor(
        name=f"{solution}_{'champion' if targets[0].segment is None else 'segment_champions'}",
        description="Reconciles a champion that was set by hand in MLflow with the history of deployments.",
        # The job of whoever deploys: this sensor, `mlops promote` and `mlops rollback`.
        target=dg.define_asset_job(
            job_name(solution, stage),
            selection=dg.AssetSelection.assets(key),
            description=f"Deploys one version of {solution}: promotion, rollback, or the record of what was set by hand in MLflow.",
        ),
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def champion(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        try:
            found = [_reconcile(context.instance, settings, target) for target in targets]
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        requests = [each for each in found if isinstance(each, dg.RunRequest)]
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("; ".join(map(str, found)))

    return champion


def _reconcile(instance: dg.DagsterInstance, settings: Settings, target: DeploymentTarget) -> dg.RunRequest | str:
    """The run that brings history and registry together; a sentence when they agree."""
    name = target.segment or target.solution
    recorded = target.newest_deployment(instance)
    if recorded is None:
        return f"{name}: nothing was deployed yet"
    deployed = recorded.version
    expected = None if recorded.is_left_to_solution else deployed
    found = registered_champion(settings, target.solution, target.segment)
    if (found.version if found else None) == expected:
        return f"{name}: version {deployed} is deployed and is the champion"
    refused = None if found is None else _refusal(instance, settings, target, found)
    if found is not None and refused is None:
        version, partition = found.version, target.partition_key(found.tags[TRAINING_DATE_TAG])
        reason = f"the alias champion was moved by hand from version {deployed}"
    else:
        version, partition = deployed, recorded.partition
        reason = (
            f"restored: the alias champion was moved by hand to version {found.version}. {refused}"
            if found
            else "restored: the alias champion was removed by hand"
        )
    configuration = {"version": version, "actor": _ACTOR, "reason": reason}
    return dg.RunRequest(
        # One run for one state of affairs: a second tick asks for the same run, which Dagster does not launch again.
        run_key=f"{found.version if found else None}-{recorded.storage_id}",
        asset_selection=[target.key],
        partition_key=partition,
        run_config={"ops": {target.key.to_python_identifier(): {"config": configuration}}},
    )


def _refusal(instance: dg.DagsterInstance, settings: Settings, target: DeploymentTarget, found: RegisteredModel) -> str | None:
    """Why `found` may not become the champion of `target`, or None."""
    if found.segment != target.segment:
        return f"{found} was trained for {found.segment or 'all rows'}, not for {target.segment or 'all rows'}."
    return gates_problem(instance, Signer(settings.signing_key_file), found)
