"""Results of checks and materializations as Dagster stores them: one for each partition of a run. The one place that emits them."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata
from dagster._core.execution.context.system import StepExecutionContext

from mlops_assets.core.check_rules import PartitionCheckResult
from mlops_assets.stages.partition_versions import with_partition_versions


class CheckEvents:
    """The results of one step, with each result of a partition as the event that Dagster stores for that partition.

    Of a run of several partitions Dagster stores an `AssetCheckResult` without a partition, and takes one a check. An
    `AssetCheckEvaluation` may name its partition; one that is blocking and failed fails the step at its end. Dagster stores each by itself:
    the others are given to it as events of one batch, which `DAGSTER_EVENT_BATCH_SIZE` lets it store together.
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
            yield from with_partition_versions(event._replace(check_results=others))
            # After the materialization, which is what they are about.
            yield from self._evaluations(results)
        elif isinstance(event, dg.Output):
            yield from with_partition_versions(event)
        else:
            yield event

    def _evaluations(self, results: Sequence[PartitionCheckResult]) -> Iterator[Any]:
        context = dg.AssetExecutionContext.get()
        outputs = {spec.key: (name, spec) for name, spec in context.assets_def.check_specs_by_output_name.items()}
        evaluations = []
        for asset_key in {result.asset_key for result in results if result.asset_key}:
            of_asset = [result for result in results if result.asset_key == asset_key]
            targets = _materializations(context.instance, asset_key, {result.partition for result in of_asset})
            for result in of_asset:
                name, spec = outputs[dg.AssetCheckKey(asset_key, str(result.check_name))]
                if name not in self._outputs:
                    # What tells Dagster that a planned check took place.
                    self._outputs.add(name)
                    yield dg.Output(None, output_name=name)
                target = targets.get(result.partition)
                evaluations.append(partition_evaluation(result, asset_key, blocking=spec.blocking, target=target))
        stops = [evaluation for evaluation in evaluations if _is_stop(evaluation)]
        yield from _batch(context.op_execution_context.get_step_execution_context(), [e for e in evaluations if not _is_stop(e)])
        yield from stops


def partition_evaluation(
    result: PartitionCheckResult,
    asset_key: dg.AssetKey,
    *,
    blocking: bool,
    target: AssetCheckEvaluationTargetMaterializationData | None,
) -> dg.AssetCheckEvaluation:
    """Return `result`, of the partition that it names, as Dagster stores it. `target` is the materialization that it is about."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=blocking,
        partition=result.partition,
        target_materialization_data=target,
    )


def _is_stop(evaluation: dg.AssetCheckEvaluation) -> bool:
    return not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR and bool(evaluation.blocking)


def _batch(context: StepExecutionContext, evaluations: Sequence[dg.AssetCheckEvaluation]) -> Iterator[DagsterEvent]:
    """The events of `evaluations` as one batch. Making one hands it to the storage."""
    batch = str(uuid4())
    for number, evaluation in enumerate(evaluations, start=1):
        outcome = "passed." if evaluation.passed else "did not pass."
        description = "" if evaluation.description is None else f" Description: '{evaluation.description}'"
        yield DagsterEvent.from_step(
            dg.DagsterEventType.ASSET_CHECK_EVALUATION,
            context,
            evaluation,
            f"Asset check '{evaluation.check_name}' on '{evaluation.asset_key.to_user_string()}' {outcome}{description}",
            DagsterEventBatchMetadata(batch, number == len(evaluations)),
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
