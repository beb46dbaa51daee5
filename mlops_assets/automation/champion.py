"""The sensor that notices a champion which somebody set by hand in MLflow, past the deployment asset.

It launches the deployment that records the change, so that the history tells what was live, or that restores the former champion
when the chosen version never passed its gates.
"""

import dagster as dg

from mlops_assets.keys import DEPLOYMENT, stage_key
from mlops_assets.resources.champion import RegistryUnreachableError, registered_champion
from mlops_assets.resources.model_registry import GATES_PASSED, GATES_TAG, TRAINING_DATE_TAG
from mlops_assets.settings import Settings

_INTERVAL_SECONDS = 30
_ACTOR = "mlflow"


def build_champion_sensor(solution: str) -> dg.SensorDefinition:
    """The sensor of one solution. It asks for nothing while the registry agrees with the newest deployment."""
    key = stage_key(solution, DEPLOYMENT)

    @dg.sensor(
        name=f"{solution}_champion",
        description="Reconciles a champion that was set by hand in MLflow with the history of deployments.",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def champion(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        records = context.instance.fetch_materializations(key, limit=1).records
        recorded = records[0] if records else None
        if recorded is None or recorded.asset_materialization is None:
            return dg.SkipReason("nothing was deployed yet")
        deployed = int(str(recorded.asset_materialization.metadata["model_version"].value))
        try:
            found = registered_champion(settings, solution)
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        if found is not None and found.version == deployed:
            return dg.SkipReason(f"version {deployed} is deployed and is the champion")
        if found is not None and found.tags.get(GATES_TAG) == GATES_PASSED and TRAINING_DATE_TAG in found.tags:
            version, training_date = found.version, found.tags[TRAINING_DATE_TAG]
            reason = f"the alias champion was moved by hand from version {deployed}"
        else:
            version, training_date = deployed, str(recorded.asset_materialization.partition)
            reason = (
                f"restored: the alias champion was moved by hand to version {found.version}, which has not passed its gates"
                if found
                else "restored: the alias champion was removed by hand"
            )
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    # One run for one state of affairs: a second tick asks for the same run, which Dagster does not launch again.
                    run_key=f"{found.version if found else None}-{recorded.storage_id}",
                    asset_selection=[key],
                    partition_key=training_date,
                    run_config={
                        "ops": {key.to_python_identifier(): {"config": {"version": version, "actor": _ACTOR, "reason": reason}}}
                    },
                )
            ]
        )

    return champion
