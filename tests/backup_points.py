"""Points of a folder of backups that a test makes."""

from pathlib import Path

import msgspec

from mlops_assets.local.version_log import installed_versions
from mlops_assets.operations.backup.point import FORMAT, Point, StoredFile
from mlops_assets.operations.backup.store import BackupStore


def point(name: str, files: dict[str, StoredFile], **changes: object) -> Point:
    """A point with these files and nothing else."""
    empty = Point(
        format=FORMAT,
        name=name,
        home="/state",
        versions=installed_versions(),
        snapshot=0,
        tables={},
        streams={},
        files=files,
        links={},
    )
    return msgspec.structs.replace(empty, **changes)


def objects(store: BackupStore) -> list[Path]:
    """The files of all contents."""
    return [path for path in (store.folder / "objects").rglob("*") if path.is_file()]
