"""Copies of the streams of the event stream with their consumers, as the server's own interface of snapshots gives and takes them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlops_assets.clients.event_stream import INBOX_PREFIX, brief_connection_options
from mlops_assets.clients.publishing import EventStreamError

if TYPE_CHECKING:
    from nats.aio.client import Client

_SECONDS = 30.0
_CHUNK_BYTES = 128 << 10


class StreamSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream as it was copied: its configuration and its state, as the server describes them."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def last_number(self) -> int:
        """The number of the newest message that the stream was ever given."""
        return int(self.state["last_seq"])


def save_streams(url: str, folder: Path) -> dict[str, StreamSnapshot]:
    """Copy every stream into the file of its name in `folder`. Each is as it was at one moment.

    Raises EventStreamError when the server does not answer or cannot read a stream.
    """
    return asyncio.run(_save_streams(url, folder))


def restore_streams(url: str, folder: Path, streams: dict[str, StreamSnapshot]) -> None:
    """Make the `streams` again from their files in `folder`, where there are none of these names.

    Raises EventStreamError when the server does not answer or refuses one.
    """
    asyncio.run(_restore_streams(url, folder, streams))


def last_numbers(url: str) -> dict[str, int]:
    """The number of the newest message that each stream was ever given. Raises EventStreamError when the server does not answer."""
    return asyncio.run(_last_numbers(url))


async def _save_streams(url: str, folder: Path) -> dict[str, StreamSnapshot]:
    async with _connection(url) as client:
        return {name: await _save(client, name, folder / name) for name in sorted(await _last_numbers_of(client))}


async def _restore_streams(url: str, folder: Path, streams: dict[str, StreamSnapshot]) -> None:
    async with _connection(url) as client:
        for name, snapshot in streams.items():
            answer = await _ask(client, f"$JS.API.STREAM.RESTORE.{name}", msgspec.to_builtins(snapshot))
            with (folder / name).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    await _ask(client, answer["deliver_subject"], chunk)
            await _ask(client, answer["deliver_subject"], b"")


async def _last_numbers(url: str) -> dict[str, int]:
    async with _connection(url) as client:
        return await _last_numbers_of(client)


async def _last_numbers_of(client: "Client") -> dict[str, int]:
    return {str(stream.config.name): int(stream.state.last_seq) for stream in await client.jetstream().streams_info()}


async def _save(client: "Client", name: str, path: Path) -> StreamSnapshot:
    subscription = await client.subscribe(inbox := client.new_inbox())
    answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.{name}", {"deliver_subject": inbox, "chunk_size": _CHUNK_BYTES})
    with path.open("wb") as file:
        while (message := await subscription.next_msg(_SECONDS)).data:
            file.write(message.data)
            if message.reply:
                await client.publish(message.reply, b"")
    await subscription.unsubscribe()
    status = (message.headers or {}).get("Status", "204")
    if status != "204":
        raise EventStreamError(f"The stream {name} cannot be copied: {status} {(message.headers or {}).get('Description', '')}.")
    return StreamSnapshot(config=answer["config"], state=answer["state"])


async def _ask(client: "Client", subject: str, question: bytes | dict[str, Any]) -> dict[str, Any]:
    data = question if isinstance(question, bytes) else json.dumps(question).encode()
    answer: dict[str, Any] = json.loads((await client.request(subject, data, timeout=_SECONDS)).data or b"{}")
    if "error" in answer:
        raise EventStreamError(f"The event stream refused {subject}: {answer['error'].get('description', answer['error'])}.")
    return answer


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator["Client"]:
    """A connection that makes no streams, in which another fault is an EventStreamError too."""
    import nats
    from nats import errors

    try:
        client = await nats.connect(
            **brief_connection_options(url),
            name="backup",
            inbox_prefix=INBOX_PREFIX.encode(),
        )
    except (errors.Error, OSError) as error:
        raise EventStreamError(f"The event stream cannot be reached: {error or type(error).__name__}.") from error
    try:
        yield client
    except (errors.Error, TimeoutError) as error:
        raise EventStreamError(f"The event stream does not answer: {error or type(error).__name__}.") from error
    finally:
        await client.close()
