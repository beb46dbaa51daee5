"""The sensor that notices a champion which somebody set by hand in MLflow, past the deployment asset.

It launches the deployment that records the change, so that the history tells what was live, or that restores the former champion
when the chosen version never passed its gates. The champions of segments are looked after like that of the solution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from mlops_assets.keys import DEPLOYMENT, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key
from mlops_assets.resources.champion import Champion, RegistryUnreachableError, registered_champion
from mlops_assets.resources.model_registry import GATES_PASSED, GATES_TAG, SEGMENT_TAG, TRAINING_DATE_TAG
from mlops_assets.settings import Settings

LEFT_TO_SOLUTION = "left_to_solution"
"""Metadata of a deployment: whether it took from a segment its own champion, so that the solution's predicts its rows."""

_INTERVAL_SECONDS = 30
_ACTOR = "mlflow"


@dataclass(frozen=True)
class Place:
    """What has a champion: a solution, or a segment of it, with its deployment asset and that asset's partitions."""

    solution: str
    segment: str | None
    partitions: dg.PartitionsDefinition

    @property
    def key(self) -> dg.AssetKey:
        """Key of the deployment asset."""
        return stage_key(self.solution, DEPLOYMENT if self.segment is None else SEGMENT_STAGES[DEPLOYMENT])

    def partition_key(self, training_date: str) -> str:
        """The partition of a version that was trained for `training_date`."""
        return (
            training_date if self.segment is None else dg.MultiPartitionKey({SEGMENT: self.segment, TRAINING_DATE: training_date})
        )

    def newest_deployment(self, instance: dg.DagsterInstance) -> dg.EventLogRecord | None:
        """The last deployment, whatever its training date."""
        keys = None
        if self.segment is not None and isinstance(self.partitions, dg.MultiPartitionsDefinition):
            keys = self.partitions.get_multipartition_keys_with_dimension_value(SEGMENT, self.segment)
        wanted = dg.AssetRecordsFilter(asset_key=self.key, asset_partitions=keys)
        records = instance.fetch_materializations(wanted, limit=1).records
        return records[0] if records else None


def build_champion_sensor(places: Sequence[Place]) -> dg.SensorDefinition:
    """The sensor of `places` with one deployment asset. It asks for nothing while the registry agrees with the newest deployments."""
    [key] = {place.key for place in places}

    @dg.sensor(
        name=f"{places[0].solution}_{'champion' if places[0].segment is None else 'segment_champions'}",
        description="Reconciles a champion that was set by hand in MLflow with the history of deployments.",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def champion(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        try:
            found = [_reconcile(context.instance, settings, place) for place in places]
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        requests = [each for each in found if isinstance(each, dg.RunRequest)]
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("; ".join(map(str, found)))

    return champion


def _reconcile(instance: dg.DagsterInstance, settings: Settings, place: Place) -> dg.RunRequest | str:
    """The run that brings history and registry together; a sentence when they agree."""
    name = place.segment or place.solution
    recorded = place.newest_deployment(instance)
    if recorded is None or recorded.asset_materialization is None:
        return f"{name}: nothing was deployed yet"
    metadata = recorded.asset_materialization.metadata
    deployed = int(str(metadata["model_version"].value))
    expected = None if LEFT_TO_SOLUTION in metadata and metadata[LEFT_TO_SOLUTION].value else deployed
    found = registered_champion(settings, place.solution, place.segment)
    if (found.version if found else None) == expected:
        return f"{name}: version {deployed} is deployed and is the champion"
    if found is not None and _may_predict(found, place):
        version, partition = found.version, place.partition_key(found.tags[TRAINING_DATE_TAG])
        reason = f"the alias champion was moved by hand from version {deployed}"
    else:
        version, partition = deployed, str(recorded.partition_key)
        reason = (
            f"restored: the alias champion was moved by hand to version {found.version}, which has not passed its gates"
            if found
            else "restored: the alias champion was removed by hand"
        )
    configuration = {"version": version, "actor": _ACTOR, "reason": reason}
    return dg.RunRequest(
        # One run for one state of affairs: a second tick asks for the same run, which Dagster does not launch again.
        run_key=f"{found.version if found else None}-{recorded.storage_id}",
        asset_selection=[place.key],
        partition_key=partition,
        run_config={"ops": {place.key.to_python_identifier(): {"config": configuration}}},
    )


def _may_predict(found: Champion, place: Place) -> bool:
    return (
        found.tags.get(GATES_TAG) == GATES_PASSED
        and TRAINING_DATE_TAG in found.tags
        and found.tags.get(SEGMENT_TAG) == place.segment
    )
