"""The sensor that brings the servers' predictions into the lake while there are any that wait in the event stream."""

import asyncio

import dagster as dg

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.core.keys import PREDICTION_LOG, SHADOW_PREDICTIONS, stage_key
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.runs.unfinished import UNFINISHED

_TAG = "mlops/prediction_log"


def build_prediction_log_sensor(
    solution: str, partitions: dg.TimeWindowPartitionsDefinition, interval_seconds: int
) -> dg.SensorDefinition:
    """The sensor of one solution. It asks for nothing while nothing waits, or a run is already taking it.

    A run takes what waits, of whatever partitions, and records those. It is launched for the newest one because Dagster runs no asset
    with partitioned inputs without a partition.
    """
    # One step writes both.
    keys = [stage_key(solution, stage) for stage in (PREDICTION_LOG, SHADOW_PREDICTIONS)]
    name = f"{solution}_prediction_log"
    description = "Takes the predictions of the servers into the lake while any wait in the event stream."

    @dg.sensor(
        name=name,
        description=description,
        target=dg.define_asset_job(name, selection=dg.AssetSelection.assets(*keys), description=description),
        minimum_interval_seconds=sensor_interval(interval_seconds),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def prediction_log(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest | dg.SkipReason:
        from mlops_assets.clients.event_stream import EventStreamError

        try:
            waiting = asyncio.run(_waiting(event_stream_url(settings), solution))
        except EventStreamError as error:
            return dg.SkipReason(str(error))
        if not waiting:
            return dg.SkipReason("no prediction waits")
        if context.instance.get_run_ids(dg.RunsFilter(tags={_TAG: solution}, statuses=UNFINISHED), limit=1):
            return dg.SkipReason(f"{waiting} predictions wait, and a run is taking them")
        # There is one: a model that predicts was trained for a partition.
        newest = partitions.get_last_partition_key()
        return dg.RunRequest(asset_selection=keys, partition_key=newest, tags={_TAG: solution})

    return prediction_log


async def _waiting(url: str, solution: str) -> int:
    from mlops_assets.clients.event_stream import PREDICTIONS, connect, lake_consumer

    async with connect(url, name=f"prediction log sensor of {solution}", stopping=None) as stream:
        return await stream.waiting(PREDICTIONS, solution, durable=lake_consumer(solution))
