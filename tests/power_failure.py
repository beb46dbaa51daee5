"""A disk whose power fails: a file system in an image, of which a copy has what was put on the device and nothing else. No tests here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CAN_CUT_POWER = sys.platform == "linux" and os.geteuid() == 0 and Path("/dev/loop-control").exists()
_IMAGE_BYTES = 1 << 30
"""The spool wants half of it free. What is empty takes no place."""


class DiskWithoutPower:
    """An ext4 file system at `before`. `cut` copies its image while it is mounted: what is in memory only is missing there."""

    def __init__(self, folder: Path, mounts: ExitStack):
        self._folder, self._mounts, self._cuts = folder, mounts, 0
        self._image = folder / "disk.image"
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self.before = self._mount(self._image)

    def cut(self) -> Path:
        """What a machine finds that starts after a power failure at this moment: the file system, mounted at another place."""
        self._cuts += 1
        image = self._folder / f"after.{self._cuts}.image"
        subprocess.run(["cp", "--sparse=always", str(self._image), str(image)], check=True)
        return self._mount(image)

    def _mount(self, image: Path) -> Path:
        place = image.with_suffix(".mounted")
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        self._mounts.callback(subprocess.run, ["umount", str(place)], check=True)
        return place


@contextmanager
def disk(folder: Path) -> Iterator[DiskWithoutPower]:
    """A disk whose images lie in `folder`, unmounted at the end."""
    with ExitStack() as mounts:
        yield DiskWithoutPower(folder, mounts)
