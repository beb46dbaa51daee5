"""A real NATS whose writes fail, as on a full disk: it stores nothing more until it is ended, which happens once there is room."""

import asyncio
import resource

import pytest
from nats.errors import TimeoutError as NotAcknowledgedError
from nats_server import NatsServer

from mlops_assets.clients import event_stream_health
from mlops_assets.clients.event_stream import PREDICTIONS, EventStream, subject
from mlops_assets.clients.event_stream_health import end_after_failed_write

LARGE = b"x" * 100_000


def store(nats: NatsServer, identifier: str) -> None:
    async def publish(stream: EventStream) -> None:
        await stream.jetstream.publish(subject(PREDICTIONS, "parcels"), LARGE, timeout=2, headers={"Nats-Msg-Id": identifier})

    nats.run(publish)


def limit(nats: NatsServer, size: int) -> None:
    """Let no file of the server become longer: a write beyond that fails, as on a full disk."""
    number = int(nats.settings.nats_pid_file.read_text())
    resource.prlimit(number, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def mend(nats: NatsServer) -> bool:
    return asyncio.run(end_after_failed_write(nats.settings))


def test_a_server_whose_write_failed_is_ended_once_there_is_room(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store(nats, "before")
    assert not mend(nats)
    limit(nats, 1000)
    with pytest.raises(NotAcknowledgedError):
        store(nats, "while full")
    limit(nats, resource.RLIM_INFINITY)
    with pytest.raises(NotAcknowledgedError):
        store(nats, "with room")  # the fault of NATS that this module is for
    monkeypatch.setattr(event_stream_health, "ROOM_BYTES", 1 << 62)
    assert not mend(nats)
    monkeypatch.undo()
    assert mend(nats)
    nats.wait()
    nats.start()  # as supervisor does
    store(nats, "after")
    assert len(nats.messages(PREDICTIONS, "parcels")) == 2


def test_a_server_that_is_away_is_left_alone(nats: NatsServer) -> None:
    nats.kill()
    assert not mend(nats)
