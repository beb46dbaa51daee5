"""Files to which lines are only added, by any number of processes."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Add a line, whole also beside other processes, and on the disk before it returns. The file is its owner's alone.

    Raises OSError, and adds nothing, when the disk has no room.
    """
    with locked(path) as file:
        write_line(file, line)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """The file, made when it is missing, for nobody else to read or add to meanwhile."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def write_line(file: int, line: bytes) -> None:
    """Add a line to a file that is locked, as `append_line` does."""
    size = os.fstat(file).st_size
    # A power failure cut the line before: it stays a line by itself, which is named when the file is read.
    is_cut = size > 0 and os.pread(file, 1, size - 1) != b"\n"
    whole = (b"\n" if is_cut else b"") + line + b"\n"
    if os.write(file, whole) < len(whole):
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)


def lines_of(file: int) -> list[bytes]:
    """The lines of a file that is locked."""
    return os.pread(file, os.fstat(file).st_size, 0).splitlines()


def read_lines(path: Path) -> list[bytes]:
    """The lines of the file, none without it. A line that is being added is waited for: a reader would see half of a long one."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return file.read().splitlines()
