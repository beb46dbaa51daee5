"""Processes that outlive their parent: finding and ending everything that belongs to a state folder but to no supervisor."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mlops_assets.core.settings import Settings
from mlops_assets.local import postgres
from mlops_assets.local.supervisor import MARKER_VARIABLE

TERMINATE_SECONDS = 10.0


def find_processes(settings: Settings) -> list[psutil.Process]:
    """Every live process that supervisor started for this state folder, directly or through another process."""
    own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    found = {}
    for process in psutil.process_iter():
        if process.pid not in own and _belongs_to(process, settings.home):
            found[process.pid] = process
    # Postgres overwrites its environment with its status line: its pid file and its children say what belongs to it.
    server = postgres.running_process(settings)
    if server is not None:
        found |= {process.pid: process for process in (server, *_children(server))}
    return list(found.values())


def end_processes(processes: list[psutil.Process]) -> None:
    """Ask the processes to end, and kill those that have not done so after ten seconds."""
    for process in processes:
        _ignoring_the_dead(process.terminate)
    for process in _alive_after(processes, TERMINATE_SECONDS):
        _ignoring_the_dead(process.kill)
    _alive_after(processes, TERMINATE_SECONDS)


def _alive_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after at most so long. A zombie does not: in a container nobody may ever collect it."""
    deadline = time.monotonic() + seconds
    alive = [process for process in processes if _is_alive(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [process for process in alive if _is_alive(process)]
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _belongs_to(process: psutil.Process, home: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER_VARIABLE) == str(home)
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        # Gone meanwhile, or another user's: not ours to end.
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _ignoring_the_dead(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
