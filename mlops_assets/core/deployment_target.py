"""The target of a deployment: a solution, or one of its segments."""

from dataclasses import dataclass

import dagster as dg

from mlops_assets.core.keys import DEPLOYMENT, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key

LEFT_TO_SOLUTION = "left_to_solution"
"""Metadata of a deployment: whether it took from a segment its own champion, so that the solution's predicts its rows."""


@dataclass(frozen=True)
class DeploymentTarget:
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

    def has_champion(self, instance: dg.DagsterInstance) -> bool:
        """Whether the last deployment left it with a champion of its own, as Dagster's event log has it."""
        record = self.newest_deployment(instance)
        if record is None or record.asset_materialization is None:
            return False
        left = record.asset_materialization.metadata.get(LEFT_TO_SOLUTION)
        return left is None or not left.value
