"""The journal of switches: the changes of a champion that Dagster's event log has not recorded yet, each in a file until then.

A switch is written here before anything is moved, and noted as done afterwards. Whoever dies in between leaves what the next deployment, or
the sensor `champions`, needs to finish and to record it. The event log alone is the history: a file goes once its switch is there.
"""

import fcntl
import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mlops_assets.core.line_files import write_line
from mlops_assets.core.settings import Settings

SWITCH, SWITCHED_AT = "switch", "switched_at"
"""Metadata of a deployment: the id of its switch, and when it was done. Deployments by earlier releases have neither."""

SWITCH_TAG = "mlops/switch"
"""On a run that records a switch: its id."""

_LOCK, _SCRATCH = ".lock", ".new"


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The change to `version` after `before` (of `segment`), who wants it and why. `run_id` is the run that makes it, None for a command."""

    id: str
    run_id: str | None
    solution: str
    segment: str | None
    version: int
    before: int | None
    actor: str
    approved_by: str | None
    reason: str
    bundle: str
    bundle_sha256: str


@dataclass(frozen=True)
class PendingSwitch:
    """A switch that is not recorded, with its file, and the moment when it was done; None where somebody died before."""

    switch: Switch
    file: Path
    switched_at: datetime | None

    def note_done(self) -> "PendingSwitch":
        """Note that the champion is the other version now."""
        at = datetime.now(UTC)
        descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND)
        try:
            write_line(descriptor, json.dumps({SWITCHED_AT: at.isoformat()}).encode())
        finally:
            os.close(descriptor)
        return replace(self, switched_at=at)

    def is_held(self) -> bool:
        """Whether the process lives that began it, and is at work on it."""
        try:
            with self.file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def forget(self) -> None:
        """Remove what the event log has by now."""
        self.file.unlink(missing_ok=True)


@dataclass(frozen=True)
class SwitchJournal:
    """The pending switches of one solution, in its `folder`."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings, solution: str) -> "SwitchJournal":
        """The journal in the state folder."""
        return cls(settings.switches_directory / solution)

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """A block in which nobody else switches a champion of the solution. It ends with the process."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def pending(self, segment: str | None, recorded: Collection[str] = ()) -> list[PendingSwitch]:
        """The switches of the solution's own champion, or of that of `segment`, in their order. Those of `recorded` go."""
        found = []
        for file in self._files():
            if (pending := _read(file)) is None or pending.switch.segment != segment:
                continue
            if pending.switch.id in recorded:
                pending.forget()
            else:
                found.append(pending)
        return found

    @contextmanager
    def begun(self, switch: Switch) -> Iterator[PendingSwitch]:
        """Write the switch down, and hold it in the block. Call it while `deciding`; the block may last longer."""
        last = max((int(file.stem.partition("-")[0]) for file in self._files()), default=0)
        file = self.folder / f"{max(last + 1, time.time_ns()):020d}-{switch.id}.json"
        scratch = self.folder / _SCRATCH
        descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            write_line(descriptor, msgspec.json.encode(switch))
            scratch.rename(file)
            _sync(self.folder)
            yield PendingSwitch(switch, file, None)
        finally:
            os.close(descriptor)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.json"))


def _read(file: Path) -> PendingSwitch | None:
    """The switch in `file`, None when it was forgotten meanwhile. A note that a power failure cut was not made."""
    try:
        first, *notes = file.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    switched_at = None
    for note in notes:
        try:
            content: dict[str, Any] = json.loads(note)
        except ValueError:
            continue
        switched_at = datetime.fromisoformat(content[SWITCHED_AT])
    return PendingSwitch(msgspec.json.decode(first, type=Switch), file, switched_at)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
