"""A folder of backups: each file once, under its SHA-256, and a description for each point.

objects/3b/3b24...   content of a file, encrypted where there are recipients; named by the SHA-256 of what is stored
points/<name>.json   a point (`point.py`) with its own SHA-256
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from mlops_assets.core.errors import StackError
from mlops_assets.operations.backup.encryption import DecryptionError, Identity, Recipients
from mlops_assets.operations.backup.point import Point, StoredFile, check_readable

_CHUNK_BYTES = 1 << 20
_SCRATCH = ".scratch."


class _Header(msgspec.Struct, frozen=True):
    """What every release can read of a point, to tell whether it can read the rest."""

    format: int
    versions: dict[str, str]


class _SealedPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file of a point."""

    sha256: str
    point: msgspec.Raw


class BackupStore:
    """The backups in `folder`. Only its owner can read it: it holds the keys of the installation. What is added is encrypted to `recipients`."""

    def __init__(self, folder: Path, recipients: Recipients | None = None):
        self.folder, self.recipients = folder, recipients
        self._encrypted: dict[str, StoredFile] = {}
        self._objects, self._points = folder / "objects", folder / "points"

    @contextmanager
    def locked(self) -> Iterator[Path]:
        """The right to change the folder, which is created, for the block; yields a folder in it for scratch files.

        Raises StackError when another process has it, OSError when the folder cannot be written.
        """
        for folder in (self.folder, self._objects, self._points):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError(
                    f"Another backup to {self.folder} is being made.", remedy="Try again when it is done."
                ) from error
            for left in self.folder.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left)  # of a backup that was killed
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=_SCRATCH) as scratch:
                yield Path(scratch)

    def names(self) -> list[str]:
        """The names of the points, oldest first."""
        return sorted(path.stem for path in self._points.glob("*.json"))

    def read(self, name: str | None) -> Point:
        """The point of this name; None: the newest.

        Raises StackError when there is none, when its description was changed, or when a newer release made it.
        """
        names = self.names()
        if not names:
            raise StackError(f"There is no backup in {self.folder}.", remedy=f"Make one: mlops backup {self.folder}")
        if name is not None and name not in names:
            raise StackError(f"There is no backup {name} in {self.folder}.", remedy=f"Choose one of: {', '.join(names)}")
        path = self._points / f"{name or names[-1]}.json"
        try:
            sealed = msgspec.json.decode(path.read_bytes(), type=_SealedPoint)
            if hashlib.sha256(sealed.point).hexdigest() != sealed.sha256:
                raise _damaged(path)
            header = msgspec.json.decode(sealed.point, type=_Header)
            check_readable(header.format, header.versions)
            point = msgspec.json.decode(sealed.point, type=Point)
        except msgspec.DecodeError as error:
            raise _damaged(path) from error
        if any(_leads_out(name) for name in (*point.files, *point.links)):
            # Nothing that this product wrote: a restore would write elsewhere.
            raise _damaged(path)
        return point

    def newest(self) -> Point | None:
        """The newest point, None in an empty folder. Raises StackError as `read` does."""
        return self.read(None) if self.names() else None

    def take_up(self, point: Point) -> dict[str, StoredFile]:
        """The files of the `point` that may be named again for what has not changed: those that the same recipients can read.

        Raises StackError when they are encrypted, and what is added now would not be.
        """
        if point.recipients and not self.recipients:
            raise StackError(
                f"The backups in {self.folder} are encrypted, and this one would not be.",
                remedy="Name the recipients, in MLOPS_BACKUP_RECIPIENTS or by --recipient, or another folder.",
            )
        if point.recipients != (self.recipients.names if self.recipients else []):
            return {}
        self._encrypted = {file.sha256: file for file in point.files.values() if self._path(file).exists()}
        return point.files

    def add(self, source: Path, known: StoredFile | None, scratch: Path) -> tuple[StoredFile, int]:
        """Store the content of `source`. Returns its description, and the bytes that were new in the folder.

        A file of the size and time of `known` is taken for that one, without reading it.
        """
        status = source.stat()
        if known and (known.size, known.modified) == (status.st_size, status.st_mtime_ns) and self._path(known).exists():
            return known, 0
        copy, encrypted = scratch / "object", None
        with source.open("rb") as original, _create(copy) as target:
            if self.recipients:
                sha256, size, encrypted = self.recipients.encrypt(original, target)
            else:
                sha256, size = _copy(original, target)
        stored = StoredFile(sha256=sha256, size=size, modified=status.st_mtime_ns, encrypted=encrypted)
        if encrypted:
            # The same content is encrypted to other bytes each time.
            former = self._encrypted.setdefault(sha256, stored)
            if self._path(former).exists():
                return msgspec.structs.replace(stored, encrypted=former.encrypted), 0
        new_bytes = copy.stat().st_size
        path = self._path(stored)
        if path.exists():
            return stored, 0
        path.parent.mkdir(mode=0o700, exist_ok=True)
        copy.replace(path)
        return stored, new_bytes

    def commit(self, point: Point, scratch: Path) -> None:
        """Add the point, once everything that it names has reached the disk."""
        os.sync()
        content = msgspec.json.encode(point)
        sealed = _SealedPoint(sha256=hashlib.sha256(content).hexdigest(), point=msgspec.Raw(content))
        with _create(scratch / "point") as file:
            file.write(msgspec.json.encode(sealed))
            file.flush()
            os.fsync(file.fileno())
        (scratch / "point").replace(self._points / f"{point.name}.json")
        os.sync()

    def prune(self, keep: int) -> int:
        """Remove all points but the newest `keep`, and what no point names any more. Returns how many points were removed."""
        names = self.names()
        removed = names[:-keep]
        needed = {file.stored for name in names[-keep:] for file in self.read(name).files.values()}
        for name in removed:
            (self._points / f"{name}.json").unlink()
        for path in self._objects.glob("*/*"):
            if path.name not in needed:
                path.unlink()
        return len(removed)

    def restore(self, stored: StoredFile, target: Path, identity: Identity | None = None) -> None:
        """Write the file to `target`, readable by its owner alone; an encrypted one needs the `identity`.

        Raises StackError when the backup has another content by now, or the identity is not one that it is encrypted to.
        """
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(stored)
        if not path.exists():
            raise _damaged(path, target.name)
        with path.open("rb") as source, _create(target) as copy:
            if stored.encrypted is None:
                sha256, _ = _copy(source, copy)
            elif identity is None:
                raise StackError("The backup is encrypted.", remedy="Name the file of an identity that can read it: --identity")
            else:
                try:
                    sha256, _ = identity.decrypt(source, copy)
                except DecryptionError as error:
                    if not self.is_intact(stored):
                        raise _damaged(path, target.name) from error
                    raise StackError(
                        f"The identity in {identity.path} does not open this backup: {error}.",
                        remedy="Name that of one of its recipients, which the file of the point lists.",
                    ) from error
        if sha256 != stored.sha256:
            raise _damaged(path, target.name)
        os.utime(target, ns=(stored.modified, stored.modified))

    def is_intact(self, stored: StoredFile) -> bool:
        """Whether what is stored of the file is what it was; tells it without an identity."""
        path = self._path(stored)
        if not path.exists():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == stored.stored

    def _path(self, file: StoredFile) -> Path:
        return self._objects / file.stored[:2] / file.stored


def _leads_out(name: str) -> bool:
    """Whether a path of a point is outside of the folder that it is restored to."""
    return name.startswith("/") or ".." in name.split("/")


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _copy(source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
    """Copy the content; returns its SHA-256 and its size."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _damaged(path: Path, needed_for: str = "") -> StackError:
    return StackError(
        f"The backup is damaged: {path}{f', which holds {needed_for},' if needed_for else ''} is missing or was changed.",
        remedy="Restore another point, or another copy of the backup: mlops verify shows what is damaged.",
    )
