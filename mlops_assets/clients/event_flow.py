"""The messages of one consumer as they come, in micro-batches: little waiting when they are few, few round trips when they are many."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nats import errors
from nats.js import api

from mlops_assets.clients.event_stream import EventStream, subject

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_EXPIRES_SECONDS = 5.0
_QUIET_SECONDS = 0.2


class EventFlow:
    """Messages of a durable consumer, asked for before they are needed. Made by `open_flow`.

    A message that is here counts as given out: it is given out again when it is not acknowledged in time.
    """

    def __init__(self, stream: EventStream, *, request_subject: str, ahead: int):
        self._client = stream.client
        self._request_subject = request_subject
        self._ahead = ahead
        self._messages: deque[Msg] = deque()
        self._came = asyncio.Event()
        self._asked, self._asked_at, self._reconnects = 0, 0.0, -1
        self.inbox = self._client.new_inbox()

    async def take(self, *, minimum: int, maximum: int, wait_seconds: float) -> "list[Msg]":
        """The messages that are here, at most `maximum`, once there are `minimum` or `wait_seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                await self._ask()
                while len(self._messages) < minimum:
                    self._came.clear()
                    await self._came.wait()
                    await self._ask()
        return [self._messages.popleft() for _ in range(min(maximum, len(self._messages)))]

    async def finish(self) -> None:
        """Let come what was asked for, until nothing has come for a moment.

        What the server sends while the subscription ends is lost on its way, and would be given out again only when its time is up.
        """
        with contextlib.suppress(TimeoutError):
            while self._asked > 0:
                self._came.clear()
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._came.wait()

    async def give_back(self) -> None:
        """Let the messages that are here and not taken be given out to others at once."""
        while self._messages:
            await self._messages.popleft().nak()

    async def receive(self, message: "Msg") -> None:
        """Take in what the server sends: a message, or that a request for messages has ended."""
        if message.reply:
            self._messages.append(message)
            self._asked -= 1
            self._came.set()
        else:
            self._asked -= int((message.headers or {}).get("Nats-Pending-Messages", 0))
            self._came.set()

    async def _ask(self) -> None:
        """Ask for as many messages as may come, once half of them have come."""
        now, reconnects = asyncio.get_running_loop().time(), self._client.stats["reconnects"]
        if reconnects != self._reconnects or now > self._asked_at + _EXPIRES_SECONDS + 1:
            # The server has forgotten the request, or it was answered while the connection was lost.
            self._asked, self._reconnects = 0, reconnects
        room = self._ahead - max(self._asked, 0) - len(self._messages)
        if room * 2 < self._ahead or not self._client.is_connected:
            return
        request = {"batch": room, "expires": int(_EXPIRES_SECONDS * 1e9)}
        with contextlib.suppress(errors.Error):  # the connection was lost this moment
            await self._client.publish(self._request_subject, json.dumps(request).encode(), self.inbox)
        self._asked, self._asked_at = max(self._asked, 0) + room, now


@asynccontextmanager
async def open_flow(
    stream: EventStream, name: str, solution: str, *, durable: str, acknowledge_seconds: float, ahead: int
) -> AsyncIterator[EventFlow]:
    """The messages of one solution in the stream `name`, from its first on; all processes that name the same `durable` share them.

    At most `ahead` are here and not taken. One that is not acknowledged within `acknowledge_seconds` is given out again.
    """
    configuration = api.ConsumerConfig(
        durable_name=durable,
        filter_subject=subject(name, solution),
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=acknowledge_seconds,
        max_ack_pending=-1,
    )
    await stream.jetstream.add_consumer(name, configuration)
    flow = EventFlow(stream, request_subject=f"$JS.API.CONSUMER.MSG.NEXT.{name}.{durable}", ahead=ahead)
    subscription = await stream.client.subscribe(flow.inbox, cb=flow.receive)
    try:
        yield flow
    finally:
        with contextlib.suppress(errors.Error):
            await flow.finish()
            await subscription.drain()  # type: ignore[no-untyped-call]
            await flow.give_back()
