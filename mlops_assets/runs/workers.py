"""The processes that execute runs, as files: a lock for as long as a process lives, its number, and what it printed.

The lock is `flock(2)`, taken before the process starts and inherited by it. The kernel gives it back when the process ends, however
it ends, and keeps it while the process is stopped or waits for a processor: no clock, no process number and no reboot can mislead
whoever asks. See docs/adr/0017.
"""

import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

_LOCK, _LOG = ".lock", ".log"
_TAIL_BYTES = 2000


class WorkerState(Enum):
    """Whether the worker of a run lives, has died, or never was (or has ended well, which removes its files)."""

    ALIVE = "alive"
    DEAD = "dead"
    ABSENT = "absent"


@dataclass(frozen=True)
class Workers:
    """The workers whose files are in one folder."""

    directory: Path

    @contextlib.contextmanager
    def reserve(self, run_id: str) -> Iterator[int]:
        """The locked file of a run's worker, to be inherited by it; this process lets go of it at the end of the block.

        Raises BlockingIOError while another worker of the run lives.
        """
        if self.state(run_id) is WorkerState.ALIVE:
            raise BlockingIOError(f"The run {run_id} has a worker already: see {self.log(run_id)}.")
        self.directory.mkdir(parents=True, exist_ok=True)
        # Locked under another name: nobody sees the file without its lock.
        descriptor, temporary = tempfile.mkstemp(dir=self.directory, prefix=".")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(temporary).rename(self._path(run_id, _LOCK))
            yield descriptor
        finally:
            os.close(descriptor)

    def state(self, run_id: str) -> WorkerState:
        """Whether the worker of the run lives."""
        try:
            descriptor = os.open(self._path(run_id, _LOCK), os.O_RDWR)
        except FileNotFoundError:
            return WorkerState.ABSENT
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return WorkerState.ALIVE
        finally:
            os.close(descriptor)
        return WorkerState.DEAD

    def send(self, run_id: str, number: signal.Signals) -> bool:
        """Send a signal to the living worker of a run, SIGKILL to its children too. Returns whether there was one."""
        if self.state(run_id) is not WorkerState.ALIVE:
            return False
        written = self._path(run_id, _LOCK).read_text()
        if not written:
            return False  # it is being started at this moment
        try:
            # The worker is the leader of its process group.
            (os.killpg if number is signal.SIGKILL else os.kill)(int(written), number)
        except ProcessLookupError:
            return False
        return True

    def run_ids(self) -> list[str]:
        """The runs that have files: those of living workers, and of those that did not end well."""
        return sorted(path.name.removesuffix(_LOCK) for path in self.directory.glob(f"*{_LOCK}"))

    def log(self, run_id: str) -> Path:
        """File of what the worker of a run prints."""
        return self._path(run_id, _LOG)

    def open_log(self, run_id: str) -> IO[bytes]:
        """The file of what the worker of a run prints, for its owner alone, to add to."""
        return os.fdopen(os.open(self.log(run_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def last_words(self, run_id: str) -> str:
        """The end of what the worker printed, empty when there is nothing."""
        try:
            with self.log(run_id).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def remove(self, run_id: str) -> None:
        """Remove the files of a worker that is not needed any more."""
        for suffix in (_LOG, _LOCK):
            self._path(run_id, suffix).unlink(missing_ok=True)

    def _path(self, run_id: str, suffix: str) -> Path:
        return self.directory / f"{run_id}{suffix}"
