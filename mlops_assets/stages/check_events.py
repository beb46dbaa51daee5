"""Results of checks as Dagster stores them: one for each partition of a run. The one place that emits them."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from mlops_assets.core.check_rules import PartitionCheckResult

_MANY = 50
_STATEMENT_MILLISECONDS, _CONNECTION_SECONDS, _MORE_CONNECTIONS = 600_000, 3600, 20


class CheckEvents:
    """What one step yields, with each result of a partition as the event that Dagster stores for that partition.

    Of a run of several partitions Dagster stores an `AssetCheckResult` without a partition, and takes one a check. An
    `AssetCheckEvaluation` may name its partition; one that is blocking and failed fails the step at its end.
    """

    def __init__(self) -> None:
        self._outputs: set[str] = set()

    def of(self, event: Any) -> Iterator[Any]:
        """The events that take the place of `event`."""
        if isinstance(event, PartitionCheckResult):
            yield from self._evaluations([event])
        elif isinstance(event, dg.MaterializeResult):
            results = [result for result in event.check_results or [] if isinstance(result, PartitionCheckResult)]
            others = [result for result in event.check_results or [] if not isinstance(result, PartitionCheckResult)]
            yield event._replace(check_results=others)
            # After the materialization, which is what they are about.
            yield from self._evaluations(results)
        else:
            yield event

    def _evaluations(self, results: Sequence[PartitionCheckResult]) -> Iterator[Any]:
        context = dg.AssetExecutionContext.get()
        if len(results) > _MANY:
            # Dagster opens a connection for each statement but in its webserver: two an event.
            context.instance.optimize_for_webserver(
                statement_timeout=_STATEMENT_MILLISECONDS, pool_recycle=_CONNECTION_SECONDS, max_overflow=_MORE_CONNECTIONS
            )
        outputs = {spec.key: (name, spec) for name, spec in context.assets_def.check_specs_by_output_name.items()}
        for asset_key in {result.asset_key for result in results if result.asset_key}:
            of_asset = [result for result in results if result.asset_key == asset_key]
            targets = _materializations(context.instance, asset_key, {result.partition for result in of_asset})
            for result in of_asset:
                name, spec = outputs[dg.AssetCheckKey(asset_key, str(result.check_name))]
                if name not in self._outputs:
                    # What tells Dagster that a planned check took place.
                    self._outputs.add(name)
                    yield dg.Output(None, output_name=name)
                yield dg.AssetCheckEvaluation(
                    asset_key=asset_key,
                    check_name=spec.name,
                    passed=result.passed,
                    metadata=result.metadata,
                    severity=result.severity,
                    description=result.description,
                    blocking=spec.blocking,
                    partition=result.partition,
                    target_materialization_data=targets.get(result.partition),
                )


def _materializations(
    instance: dg.DagsterInstance, asset_key: dg.AssetKey, partitions: set[str]
) -> dict[str, AssetCheckEvaluationTargetMaterializationData]:
    """The newest materialization of each partition: a result that names an older one is out of date to Dagster."""
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions
    )
    if not newest:
        return {}
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key, storage_ids=list(newest.values())), limit=len(newest)
    ).records
    return {
        str(record.partition_key): AssetCheckEvaluationTargetMaterializationData(
            run_id=record.run_id, storage_id=record.storage_id, timestamp=record.timestamp
        )
        for record in records
    }
