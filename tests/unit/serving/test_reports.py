"""Reports of server processes: only those of processes that run are read."""

import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest
from server_reports import report

from mlops_assets.core.settings import Settings
from mlops_assets.serving import reports
from mlops_assets.serving.reports import ProcessReport, follow_links, read_reports


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def written(settings: Settings) -> list[Path]:
    return sorted(settings.server_reports_directory.iterdir())


def test_a_process_that_runs_is_read(settings: Settings) -> None:
    report(settings, 3)
    report(settings, 4, channel="stream")
    assert [(each.channel, each.models["example"].version) for each in read_reports(settings.server_reports_directory)] == [
        ("online", 3),
        ("stream", 4),
    ]


def test_a_process_that_ended_or_whose_number_is_another_s_is_forgotten(settings: Settings) -> None:
    report(settings, 3)
    [path] = written(settings)
    whole = msgspec.json.decode(path.read_bytes(), type=ProcessReport)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name, changes in (("ended", {"pid": ended.pid}), ("reused", {"started": whole.started - 100})):
        other = msgspec.structs.replace(whole, **changes)
        path.with_name(f"{name}.json").write_bytes(msgspec.json.encode(other))
    assert [each.pid for each in read_reports(settings.server_reports_directory)] == [os.getpid()]
    assert written(settings) == [path]


def test_a_process_is_the_same_after_the_clock_was_set(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(settings, 3)
    # The kernel tells of the moment of its start by the clock of the day.
    procfs, kernel = tmp_path / "proc", Path("/proc/stat").read_text()
    procfs.mkdir()
    (procfs / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    (procfs / "stat").write_text(re.sub(r"(?<=btime )\d+", lambda found: str(int(found[0]) - 3600), kernel))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(procfs))
    assert psutil.boot_time() == int(re.findall(r"btime (\d+)", kernel)[0]) - 3600
    assert [each.pid for each in read_reports(settings.server_reports_directory)] == [os.getpid()]


def test_a_report_that_a_full_disk_refused_is_written_when_there_is_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "FOLLOW_SECONDS", 0.01)
    monkeypatch.setattr(reports, "RENEW_SECONDS", 0.05)
    stopping, directory = threading.Event(), settings.server_reports_directory
    # A folder in the way of the file is an error of the system too.
    scratch = directory / f"online-{os.getpid()}.scratch"
    scratch.mkdir(parents=True)
    seen: list[int] = []

    def changed() -> None:
        seen.append(len(read_reports(directory)))
        if len(seen) == 3:
            scratch.rmdir()
        if seen[-1]:
            stopping.set()

    follow_links(NoSolutions(), directory, "online", stopping=stopping, changed=changed)  # type: ignore[arg-type]
    assert seen[:3] == [0, 0, 0]


def test_without_servers_there_are_no_reports(settings: Settings) -> None:
    assert read_reports(settings.server_reports_directory) == []


class NoSolutions:
    """Links that lead nowhere."""

    def __init__(self) -> None:
        self.looked = 0

    def refresh(self) -> None:
        self.looked += 1

    def items(self) -> list[object]:
        return []

    def values(self) -> list[object]:
        return []

    def __iter__(self) -> object:
        return iter(())


def test_a_process_reports_while_it_follows_and_leaves_nothing_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "FOLLOW_SECONDS", 0.01)
    stopping, directory = threading.Event(), settings.server_reports_directory
    seen: list[int] = []

    def changed() -> None:
        seen.append(len(read_reports(directory)))
        if len(seen) >= 3:
            stopping.set()

    follow_links(NoSolutions(), directory, "online", stopping=stopping, changed=changed)  # type: ignore[arg-type]
    assert seen == [0, 1, 1]
    assert written(settings) == []
    assert replace(settings).server_reports_directory == directory
