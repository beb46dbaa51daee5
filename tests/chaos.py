"""Killing the whole stack while a run is executed, and watching what becomes of the run. No tests here."""

import bisect
import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from running_stack import Platform

from mlops_assets.local import control, leftovers

_RUNS = """query Group($id: ID!) { runGroupOrError(runId: $id) { ... on RunGroup {
  runs { runId status creationTime startTime endTime } } } }"""
_EVENTS = """query Events($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {
  hasMore events { ... on MessageEvent { timestamp eventType stepKey } } } } }"""
_SECONDS = 300.0
_POLL_SECONDS = 0.1
_ATTEMPTS = 4
# Dagster gives up on a run whose code it cannot reach, and is asked again within seconds.
_GIVEN_UP_SECONDS = 45.0


@dataclass(frozen=True)
class Work:
    """A run to be killed: its assets, its partitions, and the state folder that it begins with (None: as it is)."""

    name: str
    keys: tuple[str, ...]
    first: str
    last: str
    before: Path | None


@dataclass(frozen=True)
class Event:
    """An entry of Dagster's event log: its type, its Unix time, and its step (None: that of the run)."""

    kind: str
    time: float
    step: str | None


@dataclass(frozen=True)
class Moment:
    """A place in the course of a run: after so many of its events, and so many seconds after the last of them."""

    events: int
    pause: float


@dataclass(frozen=True)
class Course:
    """An undisturbed run: the seconds of its events since its worker was asked for, and the content of all tables after it."""

    seconds: tuple[float, ...]
    tables: dict[str, str]

    def moment(self, fraction: float) -> Moment:
        """The place after this part of the run's time."""
        seconds = fraction * self.seconds[-1]
        events = bisect.bisect_right(self.seconds, seconds)
        return Moment(events, seconds - self.seconds[events - 1])


@dataclass(frozen=True)
class Outcome:
    """What became of a run that was interrupted.

    At the kill: its status, its last event and that event's step, how many processes there were, and whether dbt was among them.
    In seconds since `mlops up` was called: when it was ready, the run failed, its retry was created, and a retry succeeded. `failures`
    counts how often Dagster had to be asked for the retry.
    """

    work: str
    fraction: float
    status: str
    last: Event
    killed: int
    with_dbt: bool
    ready: float
    failed: float
    retried: float
    done: float
    failures: int
    equal: bool

    def __str__(self) -> str:
        return (
            f"| {self.work} | {self.fraction:.0%} | {self.status}, {self.last.kind} {self.last.step or ''} | "
            f"{self.killed}{', dbt' if self.with_dbt else ''} | {self.ready:.1f} | {self.failed:.1f} | {self.retried:.1f} | "
            f"{self.done:.1f} | {self.failures} | {'yes' if self.equal else 'NO'} |"
        )


def undisturbed(platform: Platform, work: Work) -> Course:
    """The course of the run when nothing happens to it."""
    run_id = launch(platform, work)
    [run] = wait_until_done(platform, run_id)
    assert run["status"] == "SUCCESS", platform.client.failures(run_id)
    course = executed(events(platform, run_id))
    return Course(tuple(event.time - course[0].time for event in course), platform.fingerprints())


def launch(platform: Platform, work: Work) -> str:
    """Ask for the run; returns its id."""
    assets = platform.client.assets()
    return platform.client.launch([assets[key] for key in work.keys], work.first, work.last, {}, purpose="test")


def kill_at(platform: Platform, work: Work, fraction: float, course: Course) -> Outcome:
    """Kill every process after this part of a run, start the stack, and wait until the run is done by itself.

    A run that ended before the kill does not count: another one is launched, which is killed sooner after the same event.
    """
    moment = course.moment(fraction)
    for attempt in range(_ATTEMPTS):
        outcome = _kill_at(platform, work, fraction, Moment(moment.events, moment.pause / 2**attempt), course)
        if outcome is not None:
            return outcome
    raise AssertionError(f"{_ATTEMPTS} times the {work.name} ended before {fraction:.0%} of it")


def _kill_at(platform: Platform, work: Work, fraction: float, moment: Moment, course: Course) -> Outcome | None:
    restore(platform, work)
    run_id = launch(platform, work)
    last = wait_for_moment(platform, run_id, moment)
    status = platform.client.run(run_id).status
    killed, with_dbt = kill_everything(platform)
    called, began = time.time(), time.monotonic()
    control.ensure_up(platform.settings)
    ready = time.monotonic() - began
    runs = wait_until_done(platform, run_id)
    done = time.monotonic() - began
    log = events(platform, run_id)
    if any(event.kind == "RUN_SUCCESS" for event in log):
        return None
    failures = [event.time - called for event in log if event.kind == "RUN_FAILURE"]
    retries = sorted(run["creationTime"] - called for run in runs if run["runId"] != run_id)
    return Outcome(
        work=work.name,
        fraction=fraction,
        status=status,
        last=last,
        killed=killed,
        with_dbt=with_dbt,
        ready=ready,
        failed=failures[0],
        retried=retries[0],
        done=done,
        failures=len(failures),
        equal=course.tables.items() <= platform.fingerprints().items(),
    )


def wait_for_moment(platform: Platform, run_id: str, moment: Moment) -> Event:
    """Wait until the run is there, or one event further; returns its last event.

    Counted in events, since the same run takes twice as long on a busy machine: seconds would miss it.
    """
    deadline = time.monotonic() + _SECONDS
    while len(course := executed(events(platform, run_id))) < moment.events:
        assert time.monotonic() < deadline, f"no {moment.events} events within {_SECONDS:.0f} s"
        time.sleep(_POLL_SECONDS)
    deadline = time.monotonic() + moment.pause
    while len(course) == moment.events and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        course = executed(events(platform, run_id))
    return course[-1]


def events(platform: Platform, run_id: str) -> list[Event]:
    """The event log of a run, without messages."""
    answer = platform.client.query(_EVENTS, id=run_id)["logsForRun"]
    assert not answer["hasMore"], f"the run {run_id} has too many events for one answer"
    return [
        Event(event["eventType"], int(event["timestamp"]) / 1000, event["stepKey"])
        for event in answer["events"]
        if event.get("eventType")
    ]


def executed(log: Sequence[Event]) -> list[Event]:
    """The events while the run was executed: from the demand for a worker to the success."""
    kinds = [event.kind for event in log]
    if "RUN_STARTING" not in kinds:
        return []
    return list(log[kinds.index("RUN_STARTING") : kinds.index("RUN_SUCCESS") + 1 if "RUN_SUCCESS" in kinds else len(log)])


def kill_everything(platform: Platform) -> tuple[int, bool]:
    """End every process of the stack as a power failure does; returns how many there were, and whether dbt was among them."""
    killed, with_dbt = set(), False
    while processes := leftovers.find_processes(platform.settings):
        with_dbt = with_dbt or any(is_dbt(process) for process in processes)
        for process in processes:
            killed.add(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)
    return len(killed), with_dbt


def restore(platform: Platform, work: Work) -> None:
    """Bring the state back to that before the run, with the stack running."""
    if work.before is None:
        drop(platform, work.keys)
        return
    kill_everything(platform)
    shutil.rmtree(platform.settings.home)
    # Owners too: Postgres runs as a user of its own when root runs the stack.
    save(work.before, platform.settings.home)
    control.ensure_up(platform.settings)


def save(state: Path, copy: Path) -> None:
    """Copy a state folder with its owners; nothing of it may be running."""
    shutil.copytree(state, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock", ".s.PGSQL*"))
    for path in [state, *state.rglob("*")]:
        target = copy / path.relative_to(state)
        if target.exists():
            shutil.chown(target, path.lstat().st_uid, path.lstat().st_gid)


def drop(platform: Platform, keys: Sequence[str]) -> None:
    """Remove the tables of assets from the lake."""
    with platform.lake.connect(read_only=False) as connection:
        for key in keys:
            schema, _, name = key.partition("/")
            connection.execute(f"DROP TABLE IF EXISTS lake.{schema}.{name}")


def is_dbt(process: psutil.Process) -> bool:
    """Whether the process is a dbt command."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.name() == "dbt"
    return False


def wait_until_done(platform: Platform, run_id: str) -> list[dict[str, Any]]:
    """The run and its retries once one of them succeeded. It fails when a step fails, and when it takes too long."""
    deadline, given_up = time.monotonic() + _SECONDS, None
    while True:
        answer = platform.client.query(_RUNS, id=run_id)["runGroupOrError"]
        runs: list[dict[str, Any]] = answer.get("runs") or []
        # Of a run that was never tried again Dagster knows no group.
        runs = runs or [platform.client.query(_RUN, id=run_id)["runOrError"]]
        if any(run["status"] == "SUCCESS" for run in runs):
            return runs
        state = platform.client.run(max(runs, key=lambda run: run["creationTime"])["runId"])
        given_up = (given_up or time.monotonic()) if state.finished and not state.followed_by else None
        assert given_up is None or time.monotonic() - given_up < _GIVEN_UP_SECONDS, platform.client.failures(state.run_id)
        assert time.monotonic() < deadline, f"not done within {_SECONDS:.0f} s: {runs}"
        time.sleep(0.5)


_RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { runId status creationTime startTime endTime } } }"
