"""The sensor that brings the servers' predictions into the lake while there are any that wait in the event stream."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import dagster as dg

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.keys import PREDICTION_LOG, SHADOW_PREDICTIONS, job_name, stage_key
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.core.shared_sensors import look_at_each, read_cursor, tick_result
from mlops_assets.runs.unfinished import UNFINISHED

NAME = "prediction_logs"
_TAG = "mlops/prediction_log"


@dataclass(frozen=True)
class LoggedSolution:
    """A solution whose servers' predictions go into the lake: its partitions, and the least time between two runs."""

    partitions: dg.TimeWindowPartitionsDefinition
    interval_seconds: int


def build_prediction_log_sensor(solutions: Mapping[str, LoggedSolution]) -> dg.SensorDefinition:
    """The sensor of `solutions`. It asks for nothing while nothing waits, or a run is already taking it.

    A run takes what waits, of whatever partitions, and records those. It is launched for the newest one because Dagster runs no asset
    with partitioned inputs without a partition. Once nothing waits of any solution, the last number of the event stream is kept: while
    it is the same, a tick asks for it and for nothing else.
    """

    @dg.sensor(
        name=NAME,
        description="Takes the predictions of the servers into the lake while any wait in the event stream.",
        jobs=[
            define_job(
                job_name(solution, PREDICTION_LOG),
                # One step writes both.
                selection=dg.AssetSelection.assets(
                    *(stage_key(solution, stage) for stage in (PREDICTION_LOG, SHADOW_PREDICTIONS))
                ),
                description=f"Takes the predictions that the servers of {solution} made into the lake.",
            )
            for solution in solutions
        ],
        minimum_interval_seconds=sensor_interval(min(each.interval_seconds for each in solutions.values())),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def prediction_logs(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.SensorResult | dg.SkipReason:
        from mlops_assets.clients.publishing import EventStreamError

        seen = read_cursor(context)
        try:
            last, waiting = asyncio.run(_waiting(event_stream_url(settings), solutions, empty_at=seen.get("empty_at")))
        except EventStreamError as error:
            return dg.SkipReason(str(error))
        launched = {name: at for name, at in seen.get("launched", {}).items() if name in solutions}
        now = time.time()

        def look(name: str, solution: LoggedSolution) -> dg.RunRequest | str:
            if not waiting.get(name):
                return "no prediction waits"
            if context.instance.get_run_ids(dg.RunsFilter(tags={_TAG: name}, statuses=UNFINISHED), limit=1):
                return f"{waiting[name]} predictions wait, and a run is taking them"
            # A moment that is to come was written before the clock was set back.
            if abs(now - launched.get(name, 0)) < sensor_interval(solution.interval_seconds):
                return f"{waiting[name]} predictions wait until {solution.interval_seconds} s after the run before"
            launched[name] = now
            # There is one: a model that predicts was trained for a partition.
            newest = solution.partitions.get_last_partition_key()
            return dg.RunRequest(job_name=job_name(name, PREDICTION_LOG), partition_key=newest, tags={_TAG: name})

        requests, reason = look_at_each(solutions, look)
        return tick_result(requests, reason, {"empty_at": None if any(waiting.values()) else last, "launched": launched})

    return prediction_logs


async def _waiting(url: str, solutions: Iterable[str], *, empty_at: int | None) -> tuple[int, dict[str, int]]:
    """The last number of the event stream, and how many predictions of each solution wait: none when it is still `empty_at`."""
    from mlops_assets.clients.event_stream import PREDICTIONS, connect, lake_consumer

    async with connect(url, name="prediction log sensor", stopping=None) as stream:
        last = await stream.last_number(PREDICTIONS)
        if last == empty_at:
            return last, {}
        return last, {name: await stream.waiting(PREDICTIONS, name, durable=lake_consumer(name)) for name in solutions}
