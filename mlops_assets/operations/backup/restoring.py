"""Restoring a backup into an empty state folder, on this machine or another one."""

import os
import shutil
from pathlib import Path

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.publishing import EventStreamError
from mlops_assets.clients.stream_snapshots import last_numbers, restore_streams
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.catalog_files import named_files
from mlops_assets.lake.lake import Lake
from mlops_assets.local import control, lake_catalog, postgres, preflight
from mlops_assets.operations.backup import databases
from mlops_assets.operations.backup.creation import Report
from mlops_assets.operations.backup.encryption import Identity
from mlops_assets.operations.backup.point import DATABASES, STATE, STREAMS, Point
from mlops_assets.operations.backup.store import BackupStore

_SCRATCH = ".restore"


def restore_backup(settings: Settings, folder: Path, name: str | None, identity: Path | None, report: Report) -> Point:
    """Make the state of the point `name` (None: the newest) in the state folder and in Postgres, which are empty. `up` goes on from there.

    One that is encrypted is read by the `identity`.
    A failed attempt leaves the state folder empty. Raises StackError when there is something already, or the backup is damaged.
    """
    store = BackupStore(folder.expanduser().resolve())
    point = store.read(name)
    if point.recipients and identity is None:
        raise StackError(
            f"The backup {point.name} is encrypted to {', '.join(point.recipients)}.",
            remedy="Name the file with the identity of one of them: --identity identity.txt",
        )
    key = Identity(identity) if point.recipients and identity else None
    if settings.home.exists() and set(settings.home.iterdir()) - {settings.postgres_password_file}:
        raise StackError(
            f"The state folder {settings.home} is not empty.",
            remedy="Set MLOPS_HOME to a new folder. To replace this one: mlops down, then move the folder away.",
        )
    _check_place_of_files(settings, point)
    preflight.check_home(settings, point.size + preflight.MINIMUM_FREE_BYTES)
    try:
        _check_servers_of_others(settings, point)
        _restore(settings, store, point, key, report)
    except EventStreamError as error:
        _empty(settings.home)
        raise StackError(str(error), remedy="Use an event stream without these streams, see MLOPS_NATS_URL.") from error
    except BaseException:
        _empty(settings.home)
        raise
    return point


def _restore(settings: Settings, store: BackupStore, point: Point, identity: Identity | None, report: Report) -> None:
    scratch = settings.home / _SCRATCH
    report(f"Copying {len(point.files)} files")
    for part, target in ((STATE, settings.home), (DATABASES, scratch / DATABASES), (STREAMS, scratch / STREAMS)):
        for path, stored in point.part(part).items():
            store.restore(stored, target / path, identity)
    for path, link in point.links.items():
        place = settings.home / path.removeprefix(f"{STATE}/")
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.symlink_to(link)
    with control.storage(settings):
        report("Filling the databases")
        postgres.create_databases(settings)
        databases.restore(settings, scratch / DATABASES)
        lake_catalog.ensure_catalog(settings)
        _check_files(settings, point)
        report("Filling the event stream")
        restore_streams(event_stream_url(settings), scratch / STREAMS, point.streams)
    shutil.rmtree(scratch)
    os.sync()


def _check_place_of_files(settings: Settings, point: Point) -> None:
    """Raise StackError when the lake of one is in a folder and that of the other in object storage."""
    if point.storage and not settings.storage:
        raise StackError(
            f"This backup is without the files of the lake, which are in {point.storage}.",
            remedy=f"Set MLOPS_STORAGE={point.storage}, or to a copy of it.",
        )
    if settings.storage and not point.storage:
        raise StackError(
            "This backup has the files of the lake, which a restore puts into the state folder.",
            remedy="Restore without MLOPS_STORAGE. Then copy the folders as docs/object-storage.md says.",
        )


def _check_files(settings: Settings, point: Point) -> None:
    """Raise StackError when files in object storage that the restored catalog names are gone."""
    lake = Lake.from_settings(settings)
    if lake.storage is None:
        return
    with lake.catalog_cursor() as cursor:
        missing = lake.missing_files(named_files(cursor))
    if missing:
        raise StackError(
            f"{len(missing)} files that the backup names are not in {lake.data_path}, such as {missing[0]}: they were removed since.",
            remedy=f"Have the bucket give back its versions of {point.name}, or restore a newer backup.",
        )


def _check_servers_of_others(settings: Settings, point: Point) -> None:
    """Raise StackError when Postgres or NATS are not the state folder's own and hold something already."""
    if settings.postgres_url is not None:
        postgres.create_databases(settings)
        if filled := databases.filled_databases(settings):
            raise StackError(
                f"Postgres has tables already in: {', '.join(filled)}.",
                remedy="Use a Postgres without them, see MLOPS_POSTGRES_URL, or drop these databases.",
            )
    if settings.nats_url is not None and (present := last_numbers(event_stream_url(settings)).keys() & point.streams):
        raise EventStreamError(f"The event stream has already: {', '.join(sorted(present))}.")


def _empty(home: Path) -> None:
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
