"""Durability of the state folder: what a server or a run acknowledged is on the disk by then, and survives a power failure.

Postgres and LMDB sync what they commit, NATS does by its `sync_interval`, the spool opens its files for it. DuckDB and MLflow close their files
without: for up to half a minute the operating system may hold them in memory, while the catalog in Postgres names them already. Their
folders get the attributes `S` and `D` of chattr(1), which files and folders made there inherit: each write returns when it is on the disk.
"""

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlops_assets.core.settings import Settings

# <linux/fs.h>
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x80086601, 0x40086602
_SYNCHRONOUS, _SYNCHRONOUS_NAMES = 0x8, 0x10000


def make_durable(settings: Settings) -> list[Path]:
    """Have what is written to the folders of the lake, of MLflow and of the bundles put on the disk at once; with `buffered`, no longer.

    Returns those whose file system has no such attribute, such as Btrfs or that of a container: there a power failure may take away what
    was written in the last half minute.
    """
    durable = settings.durability == "fsync"
    folders = (
        settings.lake_directory,
        settings.mlflow_artifact_directory,
        settings.serving_directory,
        settings.deliveries_directory,
    )
    buffered = []
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            for each in _folders(folder):
                _set_synchronous(each, durable)
            inherited = _new_files_are_synchronous(folder)
        except OSError:
            inherited = False
        if durable and not inherited:
            buffered.append(folder)
    return buffered


def _folders(folder: Path) -> Iterator[Path]:
    """The folder and all below it. What lies in them was written before, and no file of them is changed."""
    for path, _, _ in os.walk(folder):
        yield Path(path)


def _set_synchronous(folder: Path, synchronous: bool) -> None:
    """Set or clear the attributes. Raises OSError where the file system has none."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = _attributes(file)
        wanted = _SYNCHRONOUS | _SYNCHRONOUS_NAMES
        after = before | wanted if synchronous else before & ~wanted
        if after != before:
            fcntl.ioctl(file, _SET_ATTRIBUTES, struct.pack("l", after))
    finally:
        os.close(file)


def _new_files_are_synchronous(folder: Path) -> bool:
    """Whether a file made in `folder` inherits the attribute: some file systems keep it and hand it on to nobody."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return bool(_attributes(file.fileno()) & _SYNCHRONOUS)


def _attributes(file: int) -> int:
    attributes: int = struct.unpack("l", fcntl.ioctl(file, _GET_ATTRIBUTES, struct.pack("l", 0)))[0]
    return attributes
