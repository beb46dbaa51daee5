"""Token buckets that the processes of a server share: a number each in a file that all of them map."""

import mmap
import os
from pathlib import Path
from time import monotonic

_SIZE = 8


class RateLimit:
    """The bucket of one caller: `burst` tokens, refilled at `per_second`.

    The file holds the moment at which the bucket is full again (the generic cell rate algorithm), of the clock that all processes of a
    machine share. Nothing is locked: two processes that take a token at the same instant may both get the last one. Raises OSError when
    the file cannot be made.
    """

    def __init__(self, path: Path, *, per_second: float, burst: int):
        self._interval, self._depth = 1 / per_second, burst / per_second
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # On the disk now: a hole that a full disk cannot fill would kill the process when it is written.
            os.posix_fallocate(file, 0, _SIZE)
            self._map = mmap.mmap(file, _SIZE)
        finally:
            os.close(file)
        self._full_at = memoryview(self._map).cast("d")

    def take(self) -> float:
        """Take a token. Returns 0, or the seconds after which there is one."""
        now = monotonic()
        # A moment beyond the depth is of before a restart of the machine.
        full_at = min(max(self._full_at[0], now), now + self._depth)
        wait = full_at + self._interval - now - self._depth
        if wait > 1e-9:
            return wait
        self._full_at[0] = full_at + self._interval
        return 0.0
