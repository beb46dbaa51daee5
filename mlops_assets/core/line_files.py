"""Files to which lines are only added, by any number of processes."""

import fcntl
import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Add a line, whole also beside other processes, and on the disk before it returns. The file is its owner's alone."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file).st_size
        # A full disk or a power failure cut the line before: it stays a line by itself, which is named when the file is read.
        is_cut = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, (b"\n" if is_cut else b"") + line + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def read_lines(path: Path) -> list[bytes]:
    """The lines of the file, none without it. A line that is being added is waited for: a reader would see half of a long one."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return file.read().splitlines()
