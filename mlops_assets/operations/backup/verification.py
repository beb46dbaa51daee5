"""Comparison of a running installation with a backup of it, and of a backup with what was stored."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.publishing import EventStreamError
from mlops_assets.clients.stream_snapshots import last_numbers
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name
from mlops_assets.lake.tables import LakeError, counted_fingerprint, table_exists
from mlops_assets.local import control, preflight
from mlops_assets.operations.backup.creation import Report
from mlops_assets.operations.backup.point import STATE, Point
from mlops_assets.operations.backup.store import BackupStore

_MODELS = ("mlflow/", "serving/", "references/")
"""Folders whose files never change once they are complete."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was in the backup. `kind`: `backup` (damaged), `table`, `model` or `stream`."""

    kind: str
    name: str
    difference: str


@dataclass(frozen=True)
class Comparison:
    """The result for a point: what was compared, and what differs."""

    point: str
    tables: int
    models: int
    files: int
    differences: list[Difference]


def verify_backup(settings: Settings, folder: Path, name: str | None, report: Report) -> Comparison:
    """Compare the point `name` (None: the newest) with what was stored, and the installation as it is now with the point.

    Raises StackError when there is no such point or no installation, or a server does not answer.
    """
    preflight.check_installation(settings)
    store = BackupStore(folder.expanduser().resolve())
    point = store.read(name)
    report(f"Reading {len(point.files)} files of the backup")
    differences = [
        Difference("backup", path, "is missing or was changed in the backup")
        for path, stored in point.files.items()
        if not store.is_intact(stored)
    ]
    models = [path for path in point.part(STATE) if path.startswith(_MODELS)]
    try:
        with control.storage(settings):
            report(f"Reading {len(point.tables)} tables and {len(models)} files of models")
            differences += _tables(settings, point)
            differences += _models(settings, point, models)
            differences += _streams(settings, point)
    except (LakeError, EventStreamError) as error:
        raise StackError(str(error), remedy="See what does not run: mlops status") from error
    return Comparison(point.name, len(point.tables), len(models), len(point.files), differences)


def _tables(settings: Settings, point: Point) -> list[Difference]:
    differences = []
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        for table, stored in point.tables.items():
            if not table_exists(connection, table):
                differences.append(Difference("table", table, f"is gone, and had {stored.rows:,} rows"))
                continue
            rows, fingerprint = counted_fingerprint(connection, lake_name(table))
            if rows != stored.rows:
                differences.append(Difference("table", table, f"has {rows:,} rows instead of {stored.rows:,}"))
            elif fingerprint != stored.fingerprint:
                differences.append(Difference("table", table, f"has other values in its {rows:,} rows"))
    return differences


def _models(settings: Settings, point: Point, models: list[str]) -> list[Difference]:
    stored, differences = point.part(STATE), []
    for path in models:
        file = settings.home / path
        if not file.is_file():
            differences.append(Difference("model", path, "is gone"))
        elif hashlib.sha256(file.read_bytes()).hexdigest() != stored[path].sha256:
            differences.append(Difference("model", path, "has another content"))
    return differences


def _streams(settings: Settings, point: Point) -> list[Difference]:
    numbers = last_numbers(event_stream_url(settings))
    return [
        Difference("stream", name, f"ends with message {numbers.get(name, 0):,}, before {stored.last_number:,}")
        for name, stored in point.streams.items()
        if numbers.get(name, 0) < stored.last_number
    ]
