"""The stream scorer: a process that answers the requests of every solution that has a champion and the stream channel.

An event is acknowledged after its prediction is stored; killed in between, it is answered again, and the stream drops the second
prediction by its id. Any number of these processes share the requests.
"""

import asyncio
import logging
import threading
from functools import partial
from pathlib import Path

from mlops_assets.clients.event_flow import EventFlow, open_flow
from mlops_assets.clients.event_stream import REQUESTS, EventStream, connect, scorer_consumer
from mlops_assets.clients.publishing import Message, NotStoredError
from mlops_assets.clients.stopping import wait_for
from mlops_assets.serving.live import LiveSolution, LiveSolutions
from mlops_assets.serving.report_exchange import answer_with_reports
from mlops_assets.serving.reports import FOLLOW_SECONDS, follow_links
from mlops_assets.serving.stream.answers import answer

MICRO_BATCH = 200
"""The most events that are scored at once."""

_AHEAD = 1000
_ACKNOWLEDGE_SECONDS = 30.0
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


async def serve(solutions: LiveSolutions, reports: Path, url: str, stopping: asyncio.Event) -> None:
    """Answer the requests of `solutions`, those to come included, until `stopping` is set.

    What the process serves is told in the folder `reports`.
    """
    looked, halted = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(looked.set)

    # In a thread: loading a bundle takes longer than the other solutions may wait.
    following = asyncio.create_task(asyncio.to_thread(follow_links, solutions, reports, "stream", stopping=halted, changed=tell))
    try:
        async with connect(url, name="stream scorer", stopping=stopping) as stream, asyncio.TaskGroup() as tasks:
            await answer_with_reports(stream.client, reports)
            served: set[str] = set()
            # Without its thread the links would be followed no more: its error ends this process, and another one begins.
            while not (stopping.is_set() or following.done()):
                for name in solutions.keys() - served:
                    if _answers(solutions[name]):
                        served.add(name)
                        tasks.create_task(_serve_solution(solutions[name], stream, stopping))
                looked.clear()
                await wait_for(looked, FOLLOW_SECONDS)
            if following.done():
                await following
    finally:
        halted.set()
        await following


async def _serve_solution(solution: LiveSolution, stream: EventStream, stopping: asyncio.Event) -> None:
    """Answer the requests of one solution until `stopping` is set; what was taken by then is answered."""
    durable = scorer_consumer(solution.name)
    async with open_flow(
        stream, REQUESTS, solution.name, durable=durable, acknowledge_seconds=_ACKNOWLEDGE_SECONDS, ahead=_AHEAD
    ) as flow:
        _log.info("%s: answering requests", solution.name)
        while not stopping.is_set():
            if _answers(solution):
                await _answer_batch(solution, flow, stream, stopping)
            else:
                await wait_for(stopping, _IDLE_SECONDS)


async def _answer_batch(solution: LiveSolution, flow: EventFlow, stream: EventStream, stopping: asyncio.Event) -> None:
    events = await flow.take(minimum=1, maximum=MICRO_BATCH, wait_seconds=_IDLE_SECONDS)
    champions = solution.champions
    if not events or champions is None:
        return
    try:
        # The events of other solutions do not wait for a slow model.
        slow = any(model.engine.engine == "worker" for model in champions.models)
        answering = partial(answer, champions, events, stream.maximum_payload)
        messages = await asyncio.to_thread(answering) if slow else answering()
    except Exception:  # the online store is away, or lacks a view
        _log.exception("%s: %d requests wait for another try.", solution.name, len(events))
        await wait_for(stopping, _RETRY_SECONDS)
        for event in events:
            await event.nak()
        return
    if await _publish(solution.name, stream, messages, stopping):
        for event in events:
            await event.ack()


async def _publish(name: str, stream: EventStream, messages: list[Message], stopping: asyncio.Event) -> bool:
    """Store `messages`, trying again while the server is away. False when the process is to stop first: others will answer."""
    while True:
        try:
            await stream.publish(messages)
        except NotStoredError as error:
            _log.warning("%s: %s Trying again.", name, error)
            if await wait_for(stopping, _RETRY_SECONDS):
                return False
        else:
            return True


def _answers(solution: LiveSolution) -> bool:
    return solution.options.stream and solution.champions is not None
