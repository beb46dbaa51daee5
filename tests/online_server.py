"""A real online server on made bundles, and callers that do not stop: for tests and benchmarks."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil
import requests
from bundles import Fitted, fit_flights, push_planes
from waiting import wait_for

from mlops_assets.access.tls import client_context, verification
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.listening import Listening
from mlops_assets.core.settings import Settings
from mlops_assets.local.environment import process_environment
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.serving.active import CHAMPION_LINK, activate
from mlops_assets.serving.prediction_record import PredictionRecord, decode_record
from mlops_assets.serving.reports import ProcessReport, read_reports
from mlops_assets.serving.spool import segments

_PAUSE_SECONDS = 0.01
"""Of a caller between two requests. Callers without one take the processor from the processes whose replacement they watch."""

TOKEN = "a token of tests"
SOLUTION = "flights"


class OnlineServer:
    """The server's processes on a state folder of their own, with the solution `flights` in `versions`. Nothing ships its spool."""

    def __init__(
        self,
        home: Path,
        versions: dict[int, Fitted],
        processes: int = 2,
        engine: str = "process",
        *,
        restarted: bool = True,
        listening: Listening | None = None,
        durability: str = Settings.durability,
    ):
        self._restarted, self._started = restarted, list[subprocess.Popen[bytes]]()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.settings = Settings(
            home=home,
            listening=listening or Listening(),
            serving_port=port,
            serving_processes=processes,
            serving_token=TOKEN,
            durability=durability,
        )
        self._verify = verification(self.settings.listening)
        self.folder = self.settings.serving_directory / SOLUTION
        self.address = f"{self.settings.serving_url}/{SOLUTION}/predict"
        self.headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        push_planes(LmdbStore(self.settings.online_store_directory))
        for version, fitted in versions.items():
            fitted.deploy(self.folder / str(version), Signer(self.settings.signing_key_file), engine)
        self.row = json.dumps(next(iter(versions.values())).sample.rows[0].request).encode()

    def __enter__(self) -> Self:
        self._log = (self.settings.home / "server.log").open("wb")
        self.start()
        try:
            wait_for(lambda: len(self.reports()) == self.settings.serving_processes and self._answers())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
        wait_for(lambda: not self.reports())
        self._log.close()

    def start(self) -> None:
        """Start the process that starts those that answer, in a group of its own: as the stack's supervisor does, or `mlops serve`."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from mlops_assets.serving.online.server import *; serve(Settings.from_environment(), restarted={self._restarted})",
            ],
            env=process_environment(self.settings),
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._started.append(self.process)

    def log(self) -> str:
        """What the server wrote."""
        return (self.settings.home / "server.log").read_text()

    def promote(self, version: int) -> None:
        """Let the link point to a version, as a deployment does."""
        activate(self.folder / str(version), CHAMPION_LINK)

    def reports(self) -> list[ProcessReport]:
        """What the running processes say they serve."""
        return read_reports(self.settings.server_reports_directory)

    def versions(self) -> set[int | None]:
        """What they serve of the solution."""
        return {report.models[SOLUTION].version for report in self.reports()}

    def workers(self) -> set[int]:
        """The processes that answer."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if child.status() != psutil.STATUS_ZOMBIE and any("spawn_main" in word for word in child.cmdline()):
                    found.add(child.pid)
        return found

    def model_workers(self) -> set[int]:
        """The workers of LitServe, which the processes that answer have started."""
        found = set()
        for child in [child for pid in self.workers() for child in psutil.Process(pid).children()]:
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if any("spawn_main" in word for word in child.cmdline()):
                    found.add(child.pid)
        return found

    def post(self, body: bytes, **headers: str) -> requests.Response:
        """One request on a connection of its own."""
        return requests.post(self.address, data=body, headers={**self.headers, **headers}, timeout=10, verify=self._verify)

    def get(self, path: str) -> requests.Response:
        """One other request, with the token."""
        return requests.get(f"{self.settings.serving_url}{path}", headers=self.headers, timeout=10, verify=self._verify)

    def records(self) -> list[PredictionRecord]:
        """Every prediction on the disk."""
        spool = self.settings.spool_directory / SOLUTION
        return [decode_record(line.payload) for each in segments(spool) for line in each.read(1 << 30) if line.payload]

    def _answers(self) -> bool:
        try:
            return self.get("/readyz").ok
        except requests.ConnectionError:
            return False


@dataclass
class Load:
    """What callers got: how many of each status; of predictions version, id and moment; and what went wrong with connections."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    prediction_ids: list[str] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many requests had an answer."""
        return sum(self.statuses.values())


@contextmanager
def load(server: OnlineServer, *, callers: int, patience: float = 10) -> Iterator[Load]:
    """Callers that ask again and again on connections that they keep, each answer awaited, until the block ends."""
    with asked(server.settings, SOLUTION, server.row, server.headers, callers=callers, patience=patience) as found:
        yield found


@contextmanager
def asked(
    settings: Settings,
    solution: str,
    row: bytes,
    headers: dict[str, str],
    *,
    callers: int,
    patience: float,
    pause: float = _PAUSE_SECONDS,
) -> Iterator[Load]:
    """The same of any running server: callers that send `row`, each with a `pause` between two requests."""
    done, found, lock = threading.Event(), Load(), threading.Lock()
    listening = settings.listening
    context = client_context(listening.authorities) if listening.has_tls else None

    def call() -> None:
        where = "127.0.0.1", settings.serving_port
        connection = (
            http.client.HTTPSConnection(*where, timeout=patience, context=context)
            if context
            else http.client.HTTPConnection(*where, timeout=patience)
        )
        while not done.is_set():
            try:
                connection.request("POST", f"/{solution}/predict", row, headers)
                answer = connection.getresponse()
                body = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with lock:
                    found.errors.append(repr(error))
                done.wait(pause)
                continue
            with lock:
                found.statuses[answer.status] += 1
                if answer.status == 200:
                    found.versions[body["model_version"]] += 1
                    found.prediction_ids.append(body["prediction_id"])
                    found.answered_at.append(time.monotonic())
            done.wait(pause)
        connection.close()

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        done.set()
        for thread in threads:
            thread.join()


def kill(pid: int) -> None:
    """End a process at once."""
    os.kill(pid, signal.SIGKILL)


def flights(versions: int) -> dict[int, Fitted]:
    """That many versions of the solution, which answer differently."""
    return {version: fit_flights("binary_classification", version=version, seed=version) for version in range(1, versions + 1)}
