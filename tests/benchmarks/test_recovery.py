"""Recovery point and recovery time: what a backup of a working installation takes, and how long it is until the restored one works.

The table of docs/backup.md is written by this benchmark: two months of flights, then a backup while a range run of the census goes on, after
which the installation is lost.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chaos
import requests
from figures import machine, record
from running_stack import Platform, new_home

from mlops_assets.local import control
from mlops_assets.operations.backup.store import BackupStore

PAGE = Path(__file__).parents[2] / "docs" / "backup.md"
BEGIN, FINISH = "<!-- recovery, written by tests/benchmarks/test_recovery.py -->\n", "<!-- end -->\n"
DATA = ("raw/census", "raw/census_outcomes", "staging/census", "features/person", "features/census_statistics")
RANGE_RUN = chaos.Work("range run", DATA, "2015-01-01", "2017-01-01", before=None)
HELD_GOAL, RESTORE_GOAL, ANSWER_GOAL = 10.0, 120.0, 300.0


@dataclass(frozen=True)
class Recovery:
    """Seconds since the call of `mlops restore`."""

    restored: float
    answering: float
    goes_on: float


def test_backup_and_recovery(tmp_path: Path) -> None:
    """The table. What a backup holds up is a moment of the databases, and the restored installation answers and ends its runs by itself."""
    folder = tmp_path / "backups"
    with new_home("backup.") as settings:
        control.ensure_up(settings)
        stack = Platform(settings)
        demo = stack.mlops_process("demo", "--months", "2", "--json")
        assert demo.returncode == 0, demo.stderr
        first = _backup(stack, folder)
        run_id = chaos.launch(stack, RANGE_RUN)
        chaos.wait_for_moment(stack, run_id, chaos.Moment(20, 0))
        second = _backup(stack, folder)
        assert stack.client.run(run_id).status == "STARTED", "the run should outlive the backup"
        chaos.kill_everything(stack)
    newest = BackupStore(folder).newest()
    assert newest is not None
    with new_home("restored.") as settings:
        recovery = _recover(Platform(settings), folder, run_id)
    rows = [
        (
            "first backup",
            f"{first['seconds']:.1f} s, {first['bytes'] / 1e6:.1f} MB in {first['files']:,} files, {len(newest.tables)} tables",
        ),
        ("next backup, while a range run writes", f"{second['seconds']:.1f} s, {second['new_bytes'] / 1e6:.1f} MB of it new"),
        ("of it holding a moment of the databases, which stops nobody", f"{second['held_seconds']:.1f} s"),
        ("restore into an empty folder with other ports", f"{recovery.restored:.1f} s"),
        ("from the call of `mlops restore` until every server answers", f"{recovery.answering:.1f} s"),
        ("until the run that was interrupted has ended by itself", f"{recovery.goes_on:.1f} s"),
    ]
    lines = [
        f"| {time.strftime('%Y-%m-%d')}, {machine()} | measured |",
        "|---|---|",
        *(f"| {what} | {took} |" for what, took in rows),
    ]
    table = "\n".join(lines)
    sys.stdout.write(f"\n{table}\n")
    text = PAGE.read_text()
    PAGE.write_text(
        re.sub(
            f"({re.escape(BEGIN)}).*?({re.escape(FINISH)})", lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text, flags=re.S
        )
    )
    goals = (
        record("backup: moment of the databases that is held", ours=second["held_seconds"], unit="s", at_most=HELD_GOAL),
        record("restore of two months of flights", ours=recovery.restored, unit="s", at_most=RESTORE_GOAL),
        record("from the call of restore to every server", ours=recovery.answering, unit="s", at_most=ANSWER_GOAL),
    )
    assert all(goals)


def _backup(stack: Platform, folder: Path) -> dict[str, Any]:
    answer = stack.mlops_process("backup", str(folder), "--json")
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout))


def _recover(restored: Platform, folder: Path, run_id: str) -> Recovery:
    began = time.monotonic()
    answer = restored.mlops_process("restore", str(folder))
    assert answer.returncode == 0, answer.stderr
    done = time.monotonic() - began
    assert restored.mlops_process("up").returncode == 0
    assert requests.get(f"{restored.settings.serving_url}/readyz", timeout=30).status_code == 200
    answering = time.monotonic() - began
    runs = chaos.wait_until_done(restored, run_id)
    assert any(run["runId"] != run_id for run in runs), "another run goes on with the one that was interrupted"
    return Recovery(done, answering, time.monotonic() - began)
