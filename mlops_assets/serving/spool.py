"""The spool: predictions on the disk of the server that made them, until the event stream has them.

A server appends records to segments, files in `<spool directory>/<solution>/`; `serving/shipper.py` publishes and removes them. A
record is one line: the CRC-32 of its JSON in eight hexadecimal digits, a space, the JSON. A segment belongs to the process that holds
its lock, and to nobody once that process has ended, however it ended.
"""

import contextlib
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlops_assets.serving.prediction_record import PredictionRecord, encode_record

SEGMENT_SUFFIX = ".segment"
_SHIPPER_LOCK = "shipper.lock"
SEGMENT_BYTES = 8 << 20
"""A segment of this size is closed and the next one begun."""

MINIMUM_FREE_BYTES = 500 << 20
"""With less room on the disk no segment is begun."""


class SpoolError(Exception):
    """A prediction cannot be kept; the message says what to change."""


class SpoolWriter:
    """Appends the predictions of one solution. Safe to call from several threads; each process makes its own."""

    def __init__(self, directory: Path, *, durable: bool):
        self._directory, self._durable = directory, durable
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size = 0

    def append(self, *records: PredictionRecord) -> None:
        """Write the records, all or none. They survive the end of this process; when the spool is durable, a power failure too.

        Raises SpoolError when they could not be kept: the predictions must not be answered.
        """
        payloads = [encode_record(record) for record in records]
        lines = b"".join([b"%08x %b\n" % (zlib.crc32(payload), payload) for payload in payloads])
        with self._lock:
            try:
                if self._file is None or self._size >= SEGMENT_BYTES:
                    self._begin_segment()
                self._write(lines)
            except OSError as error:
                raise SpoolError(
                    f"A prediction cannot be written to {self._directory}: {error}. Make room on its disk."
                ) from error

    def close(self) -> None:
        """Give up the segment."""
        with self._lock:
            self._close_segment()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin_segment(self) -> None:
        self._close_segment()
        self._directory.mkdir(parents=True, exist_ok=True)
        status = os.statvfs(self._directory)
        if (free := status.f_bavail * status.f_frsize) < MINIMUM_FREE_BYTES:
            raise SpoolError(f"The disk of {self._directory} has {free / 1e6:.0f} MB left: make room, or start the event stream.")
        while True:
            path = self._directory / f"{time.time_ns()}-{os.getpid()}{SEGMENT_SUFFIX}"
            # One call for all requests that were scored together: each write returns when its bytes are on the disk.
            durable = os.O_DSYNC if self._durable else 0
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | durable, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                break
            # Taken for abandoned, and removed, before it was locked.
            os.close(file)
        if self._durable:
            _sync_names(self._directory)
        self._file, self._size = file, 0

    def _close_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, lines: bytes) -> None:
        file = self._file
        assert file is not None
        written = os.write(file, lines)
        if written < len(lines):
            # A full disk. Without its rest a line would spoil the next one. Nothing more is written here: the shipper may have
            # read what is taken back, and its position would lie inside of what came next.
            os.ftruncate(file, self._size)
            self._close_segment()
            raise OSError(f"{written} of {len(lines)} bytes written")
        self._size += written


@dataclass(frozen=True)
class Line:
    """One line of a segment: where it ends in the file, its bytes, and its JSON; None when the line is damaged."""

    end: int
    data: bytes
    payload: bytes | None


class Segment:
    """One segment as the shipper sees it. `shipped` is how many of its bytes are in the event stream already."""

    def __init__(self, path: Path):
        self.path = path
        self._progress = path.with_suffix(".shipped")
        self._damaged = path.with_suffix(".damaged")
        # Nothing, when a power failure took what was written away: then all of it is shipped again, and stored once.
        text = self._progress.read_text() if self._progress.exists() else ""
        self.shipped = int(text) if text.isdecimal() else 0

    def pending_bytes(self) -> int:
        """The number of bytes that are still to be shipped."""
        return self.path.stat().st_size - self.shipped

    def read(self, maximum_bytes: int) -> list[Line]:
        """The next complete lines, about `maximum_bytes` of them; a tail without its end of line is not read."""
        with self.path.open("rb") as file:
            file.seek(self.shipped)
            data = file.read(maximum_bytes)
            if b"\n" not in data:
                data += file.readline()
        return list(_lines(data, self.shipped))

    def mark_shipped(self, end: int) -> None:
        """Remember, also for the next shipper, that everything before the position `end` is in the event stream."""
        scratch = self._progress.with_suffix(".scratch")
        scratch.write_text(str(end))
        scratch.replace(self._progress)
        self.shipped = end

    def set_aside(self, data: bytes) -> Path:
        """Keep what cannot be shipped in a file beside the segment, which is returned, for a person to look at."""
        with self._damaged.open("ab") as file:
            file.write(data)
        return self._damaged

    def remove_if_done(self) -> Path | None:
        """Remove the segment when no process writes to it any more and all of it is shipped.

        A tail that its writer could not finish is set aside: returns the file that has it.
        """
        with self.path.open("rb") as file:
            if not _try_lock(file.fileno(), fcntl.LOCK_EX):
                return None
            file.seek(self.shipped)
            tail = file.read()
            if b"\n" in tail:
                return None  # written since the last look
            kept = self.set_aside(tail) if tail else None
            self.path.unlink()
            self._progress.unlink(missing_ok=True)
        return kept


@contextmanager
def shipping(spool: Path) -> Iterator[bool]:
    """The right to ship the folder `spool`, which one process has at a time: whether this one has it now."""
    spool.mkdir(parents=True, exist_ok=True)
    with (spool / _SHIPPER_LOCK).open("a") as file:
        yield _try_lock(file.fileno(), fcntl.LOCK_EX)


def is_being_shipped(spool: Path) -> bool:
    """Whether a process ships the folder `spool`."""
    with contextlib.suppress(FileNotFoundError), (spool / _SHIPPER_LOCK).open("rb") as file:
        return not _try_lock(file.fileno(), fcntl.LOCK_SH)
    return False


def segments(directory: Path) -> list[Segment]:
    """The segments of one solution, oldest first; none when there is no such folder."""
    return [Segment(path) for path in sorted(directory.glob(f"*{SEGMENT_SUFFIX}"))]


def _lines(data: bytes, start: int) -> Iterator[Line]:
    position = start
    for line in data.split(b"\n")[:-1]:
        position += len(line) + 1
        yield Line(position, line, _payload(line))


def _payload(line: bytes) -> bytes | None:
    """The JSON of a line without its end, None when the checksum is another's."""
    checksum, separator, payload = line[:8], line[8:9], line[9:]
    return payload if separator == b" " and checksum == b"%08x" % zlib.crc32(payload) else None


def _sync_names(directory: Path) -> None:
    """Put the names of the files in `directory` on the disk, and its own."""
    for each in (directory, directory.parent):
        file = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
