"""The sensor that tells of inputs that predictions wait for, and that ends the wait where the YAML says so.

It records a failed result of the check `inputs_arrived`, which the notifications tell the owner, and which the automation condition of
predictions takes for the end of the wait. Only here is the time on the clock looked at.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter

from mlops_assets.core.check_rules import PartitionCheckResult
from mlops_assets.core.keys import DEPLOYMENT, PREDICTIONS
from mlops_assets.core.settings import sensor_interval
from mlops_assets.core.shared_sensors import events_between, read_cursor
from mlops_assets.predictions.input_arrival import Arrivals, AssetPartition, arrival_result, list_partitions
from mlops_assets.stages.check_events import partition_evaluation
from mlops_assets.stages.inputs import SolutionInputs

NAME = "late_inputs"
PATIENCE = timedelta(days=1)
"""So long after the first input of a partition the owner is told of one that the YAML does not let be late."""

_INTERVAL_SECONDS = 60
_POSITION, _AWAITED = "last", "awaited"

Awaited = dict[str, dict[str, float]]
"""Solution -> partition -> the time at which the first of its inputs came, in seconds since 1970."""


def build_late_inputs_sensor(solutions: Mapping[str, SolutionInputs]) -> dg.SensorDefinition:
    """The sensor of `solutions`. It is on from the start: it launches nothing."""

    @dg.sensor(
        name=NAME,
        description="Tells of sources that predictions wait for, and when they are predicted without (`may_be_late`).",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def late_inputs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if context.repository_def is None:
            return dg.SkipReason("the code location is not loaded")
        return dg.SkipReason(tell_late_inputs(context, context.repository_def.asset_graph, solutions, now=datetime.now(UTC)))

    return late_inputs


def tell_late_inputs(
    context: dg.SensorEvaluationContext, graph: Any, solutions: Mapping[str, SolutionInputs], *, now: datetime
) -> str:
    """Record the partitions whose wait is over at `now`, and return what was found in words. What came before the first tick is no news."""
    cursor, last = read_cursor(context), context.instance.event_log_storage.get_maximum_record_id() or 0
    awaited: Awaited = cursor.get(_AWAITED, {})
    if _POSITION in cursor:
        _add_arrivals(context.instance, graph, solutions, awaited, after=cursor[_POSITION], last=last)
    late = []
    for name in sorted(awaited.keys() & solutions.keys()):
        awaited[name], results = look_at_inputs(context.instance, graph, solutions[name], awaited[name], now=now)
        late += [result for result in results if _record(context.instance, result)]
    waiting = {name: partitions for name, partitions in awaited.items() if partitions and name in solutions}
    context.update_cursor(json.dumps({_POSITION: last, _AWAITED: waiting}))
    told = "; ".join(f"{result.partition}: {result.description}" for result in late)
    return told or f"{sum(map(len, waiting.values()))} partitions wait for an input"


def look_at_inputs(
    instance: dg.DagsterInstance, graph: Any, inputs: SolutionInputs, waiting: Mapping[str, float], *, now: datetime
) -> tuple[dict[str, float], list[PartitionCheckResult]]:
    """The partitions of `waiting` that still lack an input, and the failed results of those whose wait is over at `now`."""
    arrivals, key = Arrivals(instance, graph), inputs.key(PREDICTIONS)
    still: dict[str, float] = {}
    results: list[PartitionCheckResult] = []
    if instance.get_latest_materialization_event(inputs.key(DEPLOYMENT)) is None:
        return still, results
    for partition, since in sorted(waiting.items()):
        missing = arrivals.missing(AssetPartition(key, partition), inputs.upstream_keys)
        # What was predicted without an input says so itself.
        if not missing or partition in arrivals.materialized(key):
            continue
        allowed = {inputs.view_key(chosen): chosen.may_be_late for chosen in inputs.views}
        waits = [allowed.get(each.key) or PATIENCE for each in missing]
        if now < datetime.fromtimestamp(since, UTC) + max(waits):
            still[partition] = since
            continue
        origins = list_partitions(map(arrivals.origin, missing))
        if all(allowed.get(each.key) for each in missing):
            words = f"{origins} has not come: predictions wait no longer for {list_partitions(missing)} and read older values"
        else:
            words = f"{origins} has not come: predictions wait for {list_partitions(missing)}. Load it, or see `may_be_late`"
        results.append(arrival_result(inputs, partition, missing, words))
    return still, results


def _add_arrivals(
    instance: dg.DagsterInstance,
    graph: Any,
    solutions: Mapping[str, SolutionInputs],
    awaited: Awaited,
    *,
    after: int,
    last: int,
) -> None:
    """Add the partitions of which an input came between the positions `after` and `last` of the event log."""
    readers: dict[dg.AssetKey, list[SolutionInputs]] = {}
    for inputs in solutions.values():
        for key in inputs.upstream_keys:
            if graph.get(key).partitions_def == inputs.partitions or key == inputs.spine_key:
                readers.setdefault(key, []).append(inputs)
    for record in events_between(instance, dg.DagsterEventType.ASSET_MATERIALIZATION, after=after, last=last):
        for inputs in readers.get(record.asset_key, []) if record.asset_key else []:
            if record.partition_key and inputs.partitions.has_partition_key(record.partition_key):
                awaited.setdefault(inputs.name, {}).setdefault(record.partition_key, record.timestamp)


def _record(instance: dg.DagsterInstance, result: PartitionCheckResult) -> bool:
    """Record a result without a run, once for each partition: Dagster takes no second one."""
    assert result.asset_key is not None
    key = dg.AssetCheckKey(result.asset_key, str(result.check_name))
    former = instance.event_log_storage.get_asset_check_execution_history(
        key, limit=1, partition_filter=PartitionKeyFilter(key=result.partition)
    )
    if former:
        return False
    instance.report_runless_asset_event(partition_evaluation(result, key.asset_key, blocking=False, target=None))
    return True
