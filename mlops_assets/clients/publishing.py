"""Publishing to JetStream: many messages are put on the disk at once.

With `sync_interval: always` a server writes each message of its own through to the disk: a disk of 500 such writes a second stores 500
messages a second. An atomic batch is written through once (NATS 2.15).

Source: NATS architecture decision 50, "JetStream Batch Publishing".
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from nats import errors
from nats.js.api import Header

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_BATCH_MESSAGES = 1000
"""The most messages that a server takes as one batch, by its default."""

_SINGLE_MESSAGES = 50
"""How many messages of their own are on their way at once: a server may answer the first of them only when it has written the last."""

_WAIT_SECONDS = 5.0
_HEADER_SAFE = ":/@+,;=()"
"""A header is a line whose ends do not count: other characters than these, letters and digits are encoded as in an address."""


class EventStreamError(Exception):
    """The event stream cannot do what was asked; the message says what to change."""


class NotStoredError(EventStreamError):
    """Not every message is known to be stored. Those that are will not be doubled when all are published again."""


@dataclass(frozen=True)
class Message:
    """A message to publish; `message_id` makes it unique within the duplicate window."""

    subject: str
    message_id: str
    payload: bytes


class _RefusedError(Exception):
    """The server does not take what was published, and says why."""


class _Answers:
    """The answers that are awaited. They share one reply address: it does not matter which message one is for."""

    def __init__(self, number: int):
        self.stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._missing = number
        self._count = 0

    def take(self, answer: "Msg") -> None:
        """Count what one answer tells: how many messages are stored, or why they are not."""
        if self.stored.done():
            return
        if answer.headers and answer.headers.get(Header.STATUS.value) == "503":
            self.stored.set_exception(NotStoredError("no stream takes the subject"))
            return
        told = json.loads(answer.data)
        if "error" in told:
            self.stored.set_exception(_RefusedError(told["error"]["description"]))
            return
        self._missing -= 1
        self._count += told.get("count", 1)
        if not self._missing:
            self.stored.set_result(self._count)


class Publisher:
    """Publishes over `client`, in order; call `open` first."""

    def __init__(self, client: "Client"):
        self._client = client
        self._name = uuid4().hex
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        self._awaited: dict[int, _Answers] = {}

    async def open(self) -> None:
        """Receive the acknowledgements of what is published."""
        # Not `JetStreamContext.publish_async` (nats-py 2.16), which never ends when a message is refused.
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)

    async def _take(self, answer: "Msg") -> None:
        if answers := self._awaited.get(int(answer.subject.rpartition(".")[2])):
            answers.take(answer)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store `messages`, those of one stream in their order; returns when the server has acknowledged every one.

        Raises NotStoredError when the server is away, a stream is full, a message is larger than the server admits, or an
        acknowledgement did not come in time.
        """
        try:
            for part in _parts(messages):
                await self._publish_part(part)
        except (NotStoredError, _RefusedError, errors.Error, TimeoutError, OSError) as error:
            raise NotStoredError(
                f"Not all of {len(messages)} messages were stored: {str(error) or 'no acknowledgement'}."
            ) from error

    async def _publish_part(self, part: Sequence[Message]) -> None:
        if len(part) > 1:
            # One that is stored already refuses its whole batch, and a server before 2.12 confirms the last message alone.
            # By themselves those that are missing are stored, and each tells what is wrong.
            with contextlib.suppress(_RefusedError):
                if await self._send(part, as_batch=True) == len(part):
                    return
        for start in range(0, len(part), _SINGLE_MESSAGES):
            await self._send(part[start : start + _SINGLE_MESSAGES], as_batch=False)

    async def _send(self, part: Sequence[Message], *, as_batch: bool) -> int:
        """Publish `part` and wait for the answers. Returns how many messages they say are stored; TimeoutError when one is missing."""
        number = next(self._numbers)
        reply = f"{self._inbox}.{number}"
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                answers = self._awaited[number] = _Answers(1 if as_batch else len(part))
                for position, message in enumerate(part, 1):
                    headers = {Header.MSG_ID.value: quote(message.message_id, safe=_HEADER_SAFE)}
                    last = position == len(part)
                    if as_batch:
                        headers |= {"Nats-Batch-Id": f"{self._name}-{number}", "Nats-Batch-Sequence": str(position)}
                        headers |= {"Nats-Batch-Commit": "1"} if last else {}
                    await self._client.publish(message.subject, message.payload, reply if last or not as_batch else "", headers)
                return await answers.stored
        finally:
            self._awaited.pop(number, None)


def _parts(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The messages by stream, which the first word of a subject names, as many as a batch may have."""
    streams: dict[str, list[Message]] = {}
    for message in messages:
        streams.setdefault(message.subject.partition(".")[0], []).append(message)
    for of_stream in streams.values():
        for start in range(0, len(of_stream), _BATCH_MESSAGES):
            yield of_stream[start : start + _BATCH_MESSAGES]
