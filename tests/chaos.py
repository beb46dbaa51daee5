"""Killing the whole stack while a run is executed, and watching what becomes of the run. No tests here."""

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
_SECONDS = 300.0
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
class Outcome:
    """What happened: the run's status when all was killed, how many processes that were, dbt among them or not, and the seconds since
    `mlops up` was called until it was ready, until the run was failed (None: it was still queued), and until it was done.
    """

    work: str
    moment: float
    status: str
    killed: int
    with_dbt: bool
    ready: float
    failed: float | None
    done: float
    runs: int
    equal: bool

    def __str__(self) -> str:
        failed = "-" if self.failed is None else f"{self.failed:.1f}"
        return (
            f"| {self.work} | {self.moment:.1f} s | {self.status} | {self.killed}{', dbt' if self.with_dbt else ''} | {self.ready:.1f} | "
            f"{failed} | {self.done:.1f} | {self.runs} | {'yes' if self.equal else 'NO'} |"
        )


HEADER = "| run | moment | status | killed | ready after | failed after | done after | runs | tables equal |\n" + "|---" * 9 + "|"


def undisturbed(platform: Platform, work: Work) -> tuple[float, dict[str, str]]:
    """The seconds that the run takes, and the content of all tables after it."""
    began = time.monotonic()
    run_id = launch(platform, work)
    [run] = wait_until_done(platform, run_id)
    assert run["status"] == "SUCCESS", platform.client.failures(run_id)
    return time.monotonic() - began, platform.fingerprints()


def launch(platform: Platform, work: Work) -> str:
    """Ask for the run; returns its id."""
    assets = platform.client.assets()
    return platform.client.launch([assets[key] for key in work.keys], work.first, work.last, {})


def kill_at(platform: Platform, work: Work, moment: float, expected: dict[str, str]) -> Outcome:
    """Launch the run, kill every process so many seconds later, start the stack, and wait until the run is done by itself."""
    restore(platform, work)
    run_id = launch(platform, work)
    time.sleep(moment)
    status = platform.client.run(run_id).status
    with_dbt = any(is_dbt(process) for process in leftovers.find(platform.settings))
    killed = kill_everything(platform)
    called, began = time.time(), time.monotonic()
    control.ensure_up(platform.settings)
    ready = time.monotonic() - began
    runs = wait_until_done(platform, run_id)
    done = time.monotonic() - began
    [original] = [run for run in runs if run["runId"] == run_id]
    assert any(run["status"] == "SUCCESS" for run in runs), (runs, platform.client.failures(run_id))
    return Outcome(
        work=work.name,
        moment=moment,
        status=status,
        killed=killed,
        with_dbt=with_dbt,
        ready=ready,
        failed=original["endTime"] - called if original["status"] == "FAILURE" else None,
        done=done,
        runs=len(runs),
        equal=expected.items() <= platform.fingerprints().items(),
    )


def kill_everything(platform: Platform) -> int:
    """End every process of the stack as a power failure does; returns how many there were."""
    killed = set()
    while processes := leftovers.find(platform.settings):
        for process in processes:
            killed.add(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)
    return len(killed)


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
        return any(part.endswith("/dbt") for part in process.cmdline()[:3])
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
