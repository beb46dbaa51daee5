"""A real NATS server of a test's own, which can be killed and started again on the same state."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.event_flow import open_flow
from mlops_assets.clients.event_stream import EventStream, connect
from mlops_assets.clients.event_stream_callers import write_callers
from mlops_assets.core.listening import Listening
from mlops_assets.core.settings import Settings
from mlops_assets.local import configuration
from mlops_assets.local.environment import scripts_directory

T = TypeVar("T")


class NatsServer:
    """`nats-server` with the stack's own configuration, and its state in a folder. `url` is that of the platform's user."""

    def __init__(self, directory: Path, listening: Listening | None = None, durability: str = Settings.durability):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.settings = Settings(home=directory, nats_port=self.port, listening=listening or Listening(), durability=durability)
        self.url = event_stream_url(self.settings)
        self._directory = directory
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        configuration.write_files(
            {path: text for path, text in configuration.render_files(self.settings).items() if path.name == "nats.conf"}
        )
        write_callers(self.settings)
        command = [str(scripts_directory() / "nats-server"), "--config", str(self._directory / "nats.conf")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    assert connection.recv(4096).startswith(b"INFO ")
                    return
            except OSError:
                assert time.monotonic() < deadline, (self._directory / "log").read_text()
                time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send the server a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> None:
        """Wait until the server has ended."""
        assert self._process is not None
        self._process.wait(30)

    def kill(self) -> None:
        """End the server as SIGKILL does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self, use: Callable[[EventStream], Awaitable[T]]) -> T:
        """What `use` gives with a connection."""

        async def connected() -> T:
            async with connect(self.url, name="test", stopping=None) as stream:
                return await use(stream)

        return asyncio.run(connected())

    def messages(self, stream: str, solution: str) -> list[Any]:
        """All messages that a stream holds for a solution, oldest first."""

        async def read(events: EventStream) -> list[Any]:
            found: list[Any] = []
            durable = f"test-{time.time_ns()}"
            async with open_flow(events, stream, solution, durable=durable, acknowledge_seconds=60, ahead=1000) as flow:
                while batch := await flow.take(minimum=1000, maximum=1000, wait_seconds=0.5):
                    found += batch
            await events.jetstream.delete_consumer(stream, durable)
            return found

        return self.run(read)
