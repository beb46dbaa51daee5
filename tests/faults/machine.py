"""A machine of one installation, whose state folder is on a disk that fills or hangs, and whose clock jumps. No tests here."""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_FREEZE, _THAW = 0xC0045877, 0xC0045878
"""FIFREEZE and FITHAW of linux/fs.h: writes to a frozen file system wait until it is thawed."""

_IMAGE_BYTES = 6 << 30
"""What is empty takes no place."""

_HUNG_SECONDS, _BETWEEN_SECONDS = 0.3, 0.03
"""Of a slow disk: each hang, and how long it takes writes between two of them."""


@dataclass(frozen=True)
class Machine:
    """The disk that is mounted at `disk`, and the clock of the processes that were started by `command_with_clock`."""

    disk: Path
    clock: Path

    @contextmanager
    def full(self) -> Iterator[None]:
        """Have not one free byte on the disk inside the block."""
        filler = self.disk / "filler"
        try:
            with filler.open("wb") as file:
                # What is free is less than what can be allocated: the file system needs blocks to find the others by.
                for size in (1 << 28, 1 << 22, 1 << 16, 1 << 12):
                    _fill(file.fileno(), size)
            yield
        finally:
            filler.unlink()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Let every write to the disk wait inside the block."""
        folder = os.open(self.disk, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, _FREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(folder, _THAW, 0)
        finally:
            os.close(folder)

    def be_slow(self, seconds: float) -> None:
        """Let the disk hang again and again for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self.hung():
                time.sleep(_HUNG_SECONDS)
            time.sleep(_BETWEEN_SECONDS)

    def shift_clock(self, seconds: int) -> None:
        """Let the clock be off by so much from now on."""
        with (self.clock / "offset").open("r+b") as file:
            file.write(struct.pack("q", seconds))

    def command_with_clock(self, command: list[str]) -> list[str]:
        """The command, which and whose children have the clock. In a mount namespace, whose /etc has the linker load it."""
        etc = self.clock / "etc"
        return ["unshare", "--mount", "sh", "-c", f'mount --bind {etc} /etc && exec "$@"', "sh", *command]


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine of one's own; its disk is unmounted and removed at the end."""
    with ExitStack() as ends:
        # Short, since a Unix socket's path is, and open to the user of Postgres.
        folder = Path(tempfile.mkdtemp(prefix="faults.", dir="/tmp"))
        ends.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        disk, clock, image = folder / "disk", folder / "clock", folder / "image"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
        ends.callback(subprocess.run, ["umount", str(disk)], check=True)
        _make_clock(clock)
        yield Machine(disk, clock)


def _make_clock(folder: Path) -> None:
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    (folder / "offset").write_bytes(struct.pack("q", 0))
    source, library = Path(__file__).with_name("clock.c"), folder / "clock.so"
    offset = f'-DOFFSET_FILE="{folder / "offset"}"'
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", offset, str(source), "-o", str(library), "-ldl"], check=True)
    (folder / "etc" / "ld.so.preload").write_text(f"{library}\n")


def _fill(file: int, size: int) -> None:
    while True:
        try:
            os.posix_fallocate(file, os.fstat(file).st_size, size)
        except OSError:  # no more of this size
            return
