"""Reports of the server processes on this machine: a small file each with the models it serves, renewed while it runs.

Whoever asks whether the champion really serves reads these instead of the links, which only say what should be.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Literal

import msgspec
import psutil

if TYPE_CHECKING:
    from mlops_assets.serving.live import LiveSolutions

FOLLOW_SECONDS = 0.5
"""How often a process looks at the links."""

RENEW_SECONDS = 5.0
"""How often a process renews its report when nothing changes."""

STALE_AFTER = timedelta(seconds=30)
"""A process whose report is older does not follow the links any more."""

_SAME_START_SECONDS = 0.05
"""The system counts hundredths."""

Channel = Literal["online", "stream"]
_log = logging.getLogger(__name__)


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The champions of a solution as one process serves them.

    `version` is None while it serves none; `segments` maps a segment with a champion of its own to that version. `problems` tells which
    linked bundles it does not serve, and why.
    """

    version: int | None
    model_sha256: str | None
    since: datetime | None
    segments: dict[str, int]
    problems: tuple[str, ...]


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its channel, its start (`process_start`), its machine, when it wrote this, and its models by solution."""

    channel: Channel
    pid: int
    machine: str = ""
    started: float
    written_at: datetime
    models: dict[str, ServedModel]

    @property
    def identity(self) -> tuple[str, str, int, float]:
        """What tells processes apart: containers of one machine have the same numbers."""
        return self.machine, self.channel, self.pid, self.started

    def is_stale(self, now: datetime) -> bool:
        """Whether the process has not written for so long that it must be stuck."""
        return now - self.written_at > STALE_AFTER


def process_start(process: psutil.Process) -> float:
    """Return the seconds from the start of the machine to that of the process, which no change of the clock changes."""
    return process.create_time() - psutil.boot_time()


def served_models(solutions: "LiveSolutions") -> dict[str, ServedModel]:
    """Return the models that `solutions` serve now."""
    models = {}
    for name, solution in solutions.items():
        champions = solution.champions
        contracts = [model.contract for model in champions.segments] if champions else []
        models[name] = ServedModel(
            version=champions.default.contract.version if champions else None,
            model_sha256=champions.default.contract.model_sha256 if champions else None,
            since=champions.default.since if champions else None,
            segments={contract.segment.value: contract.version for contract in contracts if contract.segment},
            problems=solution.problems,
        )
    return models


def follow_links(
    solutions: "LiveSolutions", directory: Path, channel: Channel, *, stopping: Event, changed: Callable[[], None]
) -> None:
    """Follow the links until `stopping` is set, and report to the folder `directory`; `changed` is called after each look.

    A report for which the disk has no room is written later.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{channel}-{os.getpid()}.json"
    started, reported, due = process_start(psutil.Process()), dict[str, ServedModel](), 0.0
    try:
        while not stopping.is_set():
            solutions.refresh()
            changed()
            models = served_models(solutions)
            if models != reported or time.monotonic() >= due:
                report = ProcessReport(
                    channel=channel,
                    pid=os.getpid(),
                    machine=socket.gethostname(),
                    started=started,
                    written_at=datetime.now(UTC),
                    models=models,
                )
                scratch = path.with_suffix(".scratch")
                try:
                    scratch.write_bytes(msgspec.json.encode(report))
                    scratch.replace(path)
                except OSError as error:
                    _log.warning("What this process serves cannot be reported: %s", error)
                reported, due = models, time.monotonic() + RENEW_SECONDS
            stopping.wait(FOLLOW_SECONDS)
    finally:
        path.unlink(missing_ok=True)


def read_reports(directory: Path) -> list[ProcessReport]:
    """The reports of the processes that run, by channel and process; files of processes that have ended are removed."""
    reports = []
    for path, report in _read(directory):
        if _is_running(report):
            reports.append(report)
        else:
            path.unlink(missing_ok=True)
    return reports


def read_fresh_reports(directory: Path, now: datetime) -> list[ProcessReport]:
    """The reports that are not stale at the time `now`: of processes that may run in another container, whose numbers are not seen here."""
    return [report for _, report in _read(directory) if not report.is_stale(now)]


def _read(directory: Path) -> Iterator[tuple[Path, ProcessReport]]:
    for path in sorted(directory.glob("*.json")):
        with suppress(FileNotFoundError):  # its process ended between the two
            yield path, msgspec.json.decode(path.read_bytes(), type=ProcessReport)


def _is_running(report: ProcessReport) -> bool:
    """Whether the very process runs, not another that was given its number."""
    try:
        process = psutil.Process(report.pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process_start(process) - report.started) < _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
