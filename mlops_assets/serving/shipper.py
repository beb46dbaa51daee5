"""The shipper: one process a machine that moves the spooled predictions of all solutions to the event stream.

A process of its own, so that it costs the servers no time and ships what they left when they died. Run as
`python -m mlops_assets.serving.shipper`.
"""

import asyncio
import logging
from pathlib import Path

import msgspec

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.event_stream import PREDICTIONS, EventStream, connect, subject
from mlops_assets.clients.event_stream_callers import follow_callers
from mlops_assets.clients.event_stream_health import end_after_failed_writes
from mlops_assets.clients.notices import follow_notices
from mlops_assets.clients.publishing import Message, NotStoredError
from mlops_assets.clients.stopping import wait_for
from mlops_assets.core.settings import Settings
from mlops_assets.serving.process import run
from mlops_assets.serving.report_exchange import answer_with_reports
from mlops_assets.serving.spool import Line, Segment, segments, shipping

BATCH_BYTES = 256 << 10
"""About how much is sent before the acknowledgements are awaited."""

_IDLE_SECONDS = 0.2
_RETRY_SECONDS = 1.0
_END_SECONDS = 10.0
"""How long it goes on when it is asked to stop: a pod takes the rest of its spool with it."""

_log = logging.getLogger(__name__)


class _Identified(msgspec.Struct):
    prediction_id: str


_IDENTIFIER = msgspec.json.Decoder(_Identified)


async def serve(settings: Settings, url: str, stopping: asyncio.Event) -> None:
    """Ship the spool until `stopping` is set.

    Where bundles are in object storage, notices of their changes are followed as well. The embedded event stream is kept able to store,
    and knows its callers.
    """
    tasks = [ship(settings.spool_directory, url, stopping, reports=settings.server_reports_directory)]
    if settings.nats_url is None:
        tasks += [end_after_failed_writes(settings, stopping), follow_callers(settings, stopping)]
    if settings.storage:
        tasks.append(follow_notices(url, settings.serving_directory, stopping))
    await asyncio.gather(*tasks)


async def ship(spool: Path, url: str, stopping: asyncio.Event, *, reports: Path) -> None:
    """Ship what is in the folder `spool`, and what comes, until `stopping` is set. Who asks is told the reports in the folder `reports`.

    A second shipper waits until the first has ended. While the event stream is away or full, the predictions stay in the spool.
    """
    while not stopping.is_set():
        with shipping(spool) as allowed:
            if allowed:
                async with connect(url, name="spool shipper", stopping=stopping) as stream:
                    await answer_with_reports(stream.client, reports)
                    await _ship(spool, stream, stopping)
            else:
                await wait_for(stopping, _RETRY_SECONDS)


async def _ship(spool: Path, stream: EventStream, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            shipped = await ship_once(spool, stream)
        except NotStoredError as error:
            _log.warning("%s The predictions wait in %s: %.1f MB.", error, spool, pending_bytes(spool) / 1e6)
            await wait_for(stopping, _RETRY_SECONDS)
        else:
            if not shipped:
                await wait_for(stopping, _IDLE_SECONDS)
    await _ship_rest(spool, stream)


async def _ship_rest(spool: Path, stream: EventStream) -> None:
    """Ship until nothing is left, or the time is over, or the event stream takes nothing."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            while await ship_once(spool, stream):
                pass
    except (NotStoredError, TimeoutError) as error:
        _log.warning("%s What is left of the predictions stays in %s: %.1f MB.", error, spool, pending_bytes(spool) / 1e6)


async def ship_once(spool: Path, stream: EventStream) -> int:
    """Ship one batch of every segment and remove those that are done. Returns how many predictions were shipped.

    Raises NotStoredError when the event stream does not take them; they will be shipped again, and stored once.
    """
    return sum([await _ship_batch(segment, subject(PREDICTIONS, name), stream) for name, segment in _all_segments(spool)])


def pending_bytes(spool: Path) -> int:
    """Return the number of bytes of the folder `spool` that are not in the event stream yet."""
    return sum(segment.pending_bytes() for _, segment in _all_segments(spool))


def _all_segments(spool: Path) -> list[tuple[str, Segment]]:
    folders = sorted(path for path in spool.iterdir() if path.is_dir())
    return [(folder.name, segment) for folder in folders for segment in segments(folder)]


async def _ship_batch(segment: Segment, target: str, stream: EventStream) -> int:
    lines = segment.read(BATCH_BYTES)
    if not lines:
        if kept := segment.remove_if_done():
            _log.error("The last prediction in %s was not completely written: what there is of it is in %s.", segment.path, kept)
        return 0
    messages = [(line, _message(target, line, stream.maximum_payload)) for line in lines]
    await stream.publish([message for _, message in messages if message is not None])
    for line, message in messages:
        if message is None:
            kept = segment.set_aside(line.data + b"\n")
            _log.error("A prediction in %s is damaged or longer than the event stream admits: it is in %s.", segment.path, kept)
    segment.mark_shipped(lines[-1].end)
    return len(lines)


def _message(target: str, line: Line, maximum: int) -> Message | None:
    """The message of a line, None when it can never be sent."""
    if line.payload is None or len(line.payload) > maximum:
        return None
    try:
        identifier = _IDENTIFIER.decode(line.payload).prediction_id
    except msgspec.DecodeError:
        return None
    return Message(subject=target, message_id=identifier, payload=line.payload)


if __name__ == "__main__":
    settings = Settings.from_environment()
    run(lambda stopping: serve(settings, event_stream_url(settings), stopping))
