"""What servers of several machines serve, asked over a real NATS."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil
import pytest
from nats_server import NatsServer

from mlops_assets.clients.event_stream import EventStream
from mlops_assets.core.settings import Settings
from mlops_assets.serving.report_exchange import ReportsUnreachableError, answer_with_reports, read_all_reports
from mlops_assets.serving.reports import ProcessReport, process_start

ELSEWHERE = 4_000_000
"""The number of a process that no machine of the test has."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    (tmp_path / "nats").mkdir()
    nats = NatsServer(tmp_path / "nats")
    nats.start()
    yield nats
    nats.kill()


@pytest.fixture
def settings(server: NatsServer, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "here", nats_url=server.url)


def report(folder: Path, machine: str, *, pid: int = ELSEWHERE, age: float = 0) -> None:
    written = ProcessReport(
        channel="online",
        pid=pid,
        machine=machine,
        started=process_start(psutil.Process()),
        written_at=datetime.now(UTC) - timedelta(seconds=age),
        models={},
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"online-{pid}.json").write_bytes(msgspec.json.encode(written))


@contextmanager
def answering(server: NatsServer, *folders: Path) -> Iterator[None]:
    """A machine for each folder answers."""
    ready, done = threading.Barrier(len(folders) + 1), threading.Event()

    async def answer(stream: EventStream, folder: Path) -> None:
        await answer_with_reports(stream.client, folder)
        await stream.client.flush()
        await asyncio.to_thread(ready.wait)
        await asyncio.to_thread(done.wait)

    def machine(folder: Path) -> None:
        server.run(lambda stream: answer(stream, folder))

    threads = [threading.Thread(target=machine, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    try:
        ready.wait(30)
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def machines(settings: Settings) -> list[str]:
    return [report.machine for report in read_all_reports(settings)]


def test_every_machine_tells_what_its_processes_serve_now(server: NatsServer, settings: Settings, tmp_path: Path) -> None:
    first, second, own = tmp_path / "first", tmp_path / "second", settings.server_reports_directory
    report(first, "first")
    report(second, "second")
    report(second, "second", pid=ELSEWHERE + 1, age=120)
    report(own, "here", pid=os.getpid())
    # The shipper and the stream scorer of a machine both answer.
    with answering(server, first, second, second, own):
        assert machines(settings) == ["first", "here", "second"]
        assert machines(replace(settings, nats_url=None)) == ["here"]


def test_own_processes_are_seen_when_nobody_answers(settings: Settings) -> None:
    report(settings.server_reports_directory, "here", pid=os.getpid())
    assert machines(settings) == ["here"]


def test_an_event_stream_that_is_away_is_said(server: NatsServer, settings: Settings) -> None:
    server.kill()
    with pytest.raises(ReportsUnreachableError, match="does not answer"):
        read_all_reports(settings)
