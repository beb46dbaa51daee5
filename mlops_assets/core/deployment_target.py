"""The target of a deployment: a solution, or one of its segments."""

from dataclasses import dataclass

import dagster as dg

from mlops_assets.core.keys import DEPLOYMENT, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key

LEFT_TO_SOLUTION = "left_to_solution"
"""Metadata of a deployment: whether it took from a segment its own champion, so that the solution's predicts its rows."""

_MOST_DEPLOYMENTS = 1000


@dataclass(frozen=True)
class RecordedDeployment:
    """A deployment as Dagster's event log has it, at `storage_id`; `is_left_to_solution` when the segment has no own champion since."""

    storage_id: int
    version: int
    partition: str
    is_left_to_solution: bool


@dataclass(frozen=True)
class DeploymentTarget:
    """The owner of a champion: a solution, or a segment of it, with its deployment asset and that asset's partitions.

    With `needs_approval` a version waits for a person before it predicts for the first time.
    """

    solution: str
    segment: str | None
    partitions: dg.PartitionsDefinition
    needs_approval: bool = False

    @property
    def key(self) -> dg.AssetKey:
        """Key of the deployment asset."""
        return stage_key(self.solution, DEPLOYMENT if self.segment is None else SEGMENT_STAGES[DEPLOYMENT])

    def partition_key(self, training_date: str) -> str:
        """The partition of a version that was trained for `training_date`."""
        return (
            training_date if self.segment is None else dg.MultiPartitionKey({SEGMENT: self.segment, TRAINING_DATE: training_date})
        )

    def newest_deployment(self, instance: dg.DagsterInstance) -> RecordedDeployment | None:
        """The last deployment, whatever its training date."""
        keys = None
        if self.segment is not None and isinstance(self.partitions, dg.MultiPartitionsDefinition):
            keys = self.partitions.get_multipartition_keys_with_dimension_value(SEGMENT, self.segment)
        records_filter = dg.AssetRecordsFilter(asset_key=self.key, asset_partitions=keys)
        records = instance.fetch_materializations(records_filter, limit=1).records
        materialization = records[0].asset_materialization if records else None
        if materialization is None:
            return None
        values = {name: entry.value for name, entry in materialization.metadata.items()}
        version = values["model_version"]
        assert isinstance(version, int)
        return RecordedDeployment(
            storage_id=records[0].storage_id,
            version=version,
            partition=str(materialization.partition),
            is_left_to_solution=values.get(LEFT_TO_SOLUTION) is True,
        )

    def version_before(self, instance: dg.DagsterInstance, version: int, training_date: str) -> int | None:
        """The version that the first deployment of `version` replaced; None when there was none, or it was never deployed."""
        records_filter = dg.AssetRecordsFilter(asset_key=self.key, asset_partitions=[self.partition_key(training_date)])
        for record in instance.fetch_materializations(records_filter, limit=_MOST_DEPLOYMENTS, ascending=True).records:
            entries = record.asset_materialization.metadata if record.asset_materialization else {}
            values = {name: entry.value for name, entry in entries.items()}
            if values.get("model_version") == version and values.get("changed"):
                before = values.get("version_before")
                return before if isinstance(before, int) else None
        return None

    def has_champion(self, instance: dg.DagsterInstance) -> bool:
        """Whether the last deployment left it with a champion of its own, as Dagster's event log has it."""
        deployment = self.newest_deployment(instance)
        return deployment is not None and not deployment.is_left_to_solution
