"""A real NATS whose writes fail, as on a full disk: it stores nothing more until it is ended, which happens once there is room."""

import asyncio
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.errors import TimeoutError as NotAcknowledgedError
from nats_server import NatsServer

from mlops_assets.clients import event_stream_health
from mlops_assets.clients.event_stream import PREDICTIONS, EventStream, subject
from mlops_assets.clients.event_stream_health import end_after_failed_write

LARGE = b"x" * 100_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    nats = NatsServer(tmp_path)
    nats.start()
    yield nats
    nats.kill()


def store(server: NatsServer, identifier: str) -> None:
    async def publish(stream: EventStream) -> None:
        await stream.jetstream.publish(subject(PREDICTIONS, "parcels"), LARGE, timeout=2, headers={"Nats-Msg-Id": identifier})

    server.run(publish)


def limit(server: NatsServer, size: int) -> None:
    """Let no file of the server become longer: a write beyond that fails, as on a full disk."""
    number = int(server.settings.nats_pid_file.read_text())
    resource.prlimit(number, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def mend(server: NatsServer) -> bool:
    return asyncio.run(end_after_failed_write(server.settings))


def test_a_server_whose_write_failed_is_ended_once_there_is_room(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store(server, "before")
    assert not mend(server)
    limit(server, 1000)
    with pytest.raises(NotAcknowledgedError):
        store(server, "while full")
    limit(server, resource.RLIM_INFINITY)
    with pytest.raises(NotAcknowledgedError):
        store(server, "with room")  # the fault of NATS that this module is for
    monkeypatch.setattr(event_stream_health, "ROOM_BYTES", 1 << 62)
    assert not mend(server)
    monkeypatch.undo()
    assert mend(server)
    server.wait()
    server.start()  # as supervisor does
    store(server, "after")
    assert len(server.messages(PREDICTIONS, "parcels")) == 2


def test_a_server_that_is_away_is_left_alone(server: NatsServer) -> None:
    server.kill()
    assert not mend(server)
