"""Installations that faults are done to: empty ones, prepared ones, and copies of these. No tests here."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import chaos
from fault_kinds import Installation
from machine import machine
from running_stack import Platform, new_home
from trials import FIRST, SOLUTION

from mlops_assets.local import control


@contextmanager
def new_installation() -> Iterator[Installation]:
    """An installation on a machine of its own, stopped at the end of the block."""
    with machine() as each, new_home() as settings:
        # Ports of its own, and its state on the disk of the machine. Nothing runs yet.
        settings = replace(settings, home=each.disk / "state")
        try:
            yield Installation(Platform(settings), each)
        finally:
            control.down(settings)


def prepare(platform: Platform) -> None:
    """Start an empty installation, with a deployed version and two months of data."""
    control.ensure_up(platform.settings)
    # The training that the demo's last decision asks for ends here, and in no step.
    first, last = FIRST - timedelta(days=3), FIRST - timedelta(days=1)
    week = ("replay", SOLUTION, "--from", str(first), "--to", str(last), "--step", "week", "--json")
    for command in (("demo", "--months", "2", "--json"), week):
        done = platform.mlops(*command)
        assert done.returncode == 0, done.stderr


@contextmanager
def state(installation: Installation, before: Path, after: Path | None) -> Iterator[None]:
    """The stack on a copy of a state, with the machine's clock. Its own state is kept in the folder `after`, if there is one, and gone then."""
    settings = installation.platform.settings
    chaos.save(before, settings.home)
    installation.up()
    try:
        yield
        if after is not None:
            control.down(settings)
            shutil.rmtree(after, ignore_errors=True)
            chaos.save(settings.home, after)
    finally:
        control.down(settings)
        shutil.rmtree(settings.home)
