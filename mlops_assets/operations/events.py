"""Events by hand: a day of the spine sent as requests, and the newest answers read."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from nats import errors
from nats.js import api

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.event_stream import REQUESTS, connect, subject
from mlops_assets.clients.publishing import EventStreamError, Message
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import column_types, current_snapshot
from mlops_assets.operations.training import check_overrides
from mlops_assets.stages.inputs import SolutionInputs

T = TypeVar("T")

_BATCH = 500
_BATCHES_A_SECOND = 50
_QUIET_SECONDS = 1.0


def requests_of_day(settings: Settings, solution: str, day: date, *, look_up: bool) -> list[bytes]:
    """The spine's rows of the partition `day` as requests, in the order of their prediction times.

    They carry the feature values as known at prediction time; with `look_up` none, so that the online store's are used. Raises
    StackError when there is no such solution or the day has no rows.
    """
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    inputs = resolve_inputs(check_overrides(solution, {}), registry)
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        frame = inputs.frame_query(
            first=day, end=day + timedelta(days=1), condition="true", labelled=False, snapshot=current_snapshot(connection)
        )
        query = _request_query(inputs, frame, column_types(connection, f"({frame})"), look_up=look_up)
        rows = connection.execute(query).fetchall()
    if not rows:
        raise StackError(
            f"{inputs.spine.table} has no rows of {day}.",
            remedy=f"Materialize it for that day, or choose another: mlops sql "
            f'"SELECT min({inputs.solution.partitions.column}), max({inputs.solution.partitions.column}) FROM {inputs.spine.table}"',
        )
    return [row.encode() for (row,) in rows]


def _request_query(inputs: SolutionInputs, frame: str, types: dict[str, str], *, look_up: bool) -> str:
    def member(name: str) -> str:
        return f"{literal(name)}, {_json_value(name, types[name])}"

    looked_up = [] if look_up else [feature for chosen in inputs.views for feature in chosen.features]
    members = [member(name) for name in inputs.spine_columns(labelled=False)]
    if looked_up:
        members.append(f"'features', json_object({', '.join(map(member, looked_up))})")
    at = quote(inputs.solution.spine.prediction_time)
    return f"SELECT CAST(json_object({', '.join(members)}) AS VARCHAR) FROM ({frame}) ORDER BY {at}"


def _json_value(name: str, kind: str) -> str:
    """SQL for the column as JSON has it: a moment with its offset, no NaN."""
    column = quote(name)
    if kind.startswith("TIMESTAMP"):
        return f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"CASE WHEN isfinite({column}) THEN {column} END" if kind in ("DOUBLE", "FLOAT") else column


def send_requests(settings: Settings, solution: str, requests: Sequence[bytes], rate: float | None) -> float:
    """Publish `requests`, `rate` a second (None: as fast as it goes). Returns how many seconds it took.

    Raises StackError when the event stream does not take them.
    """
    return _run(_send(event_stream_url(settings), solution, requests, rate))


async def _send(url: str, solution: str, requests: Sequence[bytes], rate: float | None) -> float:
    began, target = time.monotonic(), subject(REQUESTS, solution)
    size = _BATCH if rate is None else max(1, min(_BATCH, round(rate / _BATCHES_A_SECOND)))
    async with connect(url, name="mlops stream send", stopping=None) as stream:
        for start in range(0, len(requests), size):
            if rate is not None:
                await asyncio.sleep(max(0.0, began + start / rate - time.monotonic()))
            batch = enumerate(requests[start : start + size], start)
            await stream.publish([Message(target, f"{time.time_ns()}-{number}", payload) for number, payload in batch])
    return time.monotonic() - began


def read_answers(settings: Settings, solution: str, *, stream: str, minutes: float, follow: bool) -> Iterator[dict[str, Any]]:
    """The messages of `stream` (`predictions` or `rejects`) of the last `minutes`, oldest first; with `follow` those to come too.

    Raises StackError when the event stream is away.
    """
    with asyncio.Runner() as runner:
        source = _answers(event_stream_url(settings), subject(stream, solution), minutes, follow)
        try:
            while True:
                yield runner.run(anext(source))
        except StopAsyncIteration:
            return
        except EventStreamError as error:
            raise StackError(str(error), remedy="mlops status") from error
        finally:
            runner.run(source.aclose())


async def _answers(url: str, target: str, minutes: float, follow: bool) -> AsyncGenerator[dict[str, Any], None]:
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    configuration = api.ConsumerConfig(deliver_policy=api.DeliverPolicy.BY_START_TIME, opt_start_time=since)
    async with connect(url, name="mlops stream tail", stopping=None) as stream:
        subscription = await stream.jetstream.subscribe(target, ordered_consumer=True, config=configuration)
        while True:
            try:
                message = await subscription.next_msg(timeout=_QUIET_SECONDS)
            except errors.TimeoutError:
                if not follow:
                    return
                continue
            yield json.loads(message.data)


def _run(work: Coroutine[None, None, T]) -> T:
    try:
        return asyncio.run(work)
    except EventStreamError as error:
        raise StackError(str(error), remedy="mlops status, mlops logs nats") from error
