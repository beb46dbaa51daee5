"""Waiting for what another process does. No tests here."""

import time
from collections.abc import Callable
from typing import Any

import psutil

_SECONDS = 400
"""What takes longer will not come. What comes late, beside whatever else the machine does, fails no test."""


def wait_for(condition: Callable[[], Any], *, every: float = 0.05) -> None:
    """Wait until `condition`, which is asked `every` so many seconds, holds; fails where it never does."""
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {_SECONDS} s"
        time.sleep(every)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, collected by its parent or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
