"""Making a backup while the installation runs."""

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.publishing import EventStreamError
from mlops_assets.clients.stream_snapshots import save_streams
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.lake.catalog_files import keep_files, named_files
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name
from mlops_assets.lake.tables import LakeError, counted_fingerprint
from mlops_assets.local import control, preflight
from mlops_assets.local.version_log import FIRST_RELEASE, PRODUCT, last_writer
from mlops_assets.online_store import lmdb_store
from mlops_assets.operations.backup import databases
from mlops_assets.operations.backup.encryption import Recipients
from mlops_assets.operations.backup.point import (
    DATABASES,
    FORMAT,
    STATE,
    STREAMS,
    UNENCRYPTED_FORMAT,
    Point,
    StoredFile,
    StoredTable,
)
from mlops_assets.operations.backup.state_files import AT_ONCE, FIRST, state_files
from mlops_assets.operations.backup.store import BackupStore

Report = Callable[[str], None]
"""Called with what is being done."""

_TABLES = """
SELECT s.schema_name || '.' || t.table_name FROM ducklake_table t JOIN ducklake_schema s USING (schema_id)
WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL ORDER BY 1
"""
_ONLINE_STORE = "online_store"
_PLAIN = ".backup."


@dataclass(frozen=True)
class Backup:
    """A backup that was made: the point, the bytes that were new in the folder, the points that it replaced, and how long it took.

    For `held_seconds` of them a moment of the databases was held.
    """

    point: Point
    new_bytes: int
    removed: int
    seconds: float
    held_seconds: float


@dataclass
class _Copies:
    """What was copied so far. Files are taken from the folder of the point before when they did not change since."""

    store: BackupStore
    scratch: Path
    known: dict[str, StoredFile]
    files: dict[str, StoredFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    new_bytes: int = 0

    def take(self, root: Path, paths: Iterable[Path], part: str) -> None:
        """Copy the files and links `paths`, all below `root`, which is `part` of the backup."""
        for path in paths:
            name = f"{part}/{path.relative_to(root).as_posix()}"
            if path.is_symlink():
                self.links[name] = str(path.readlink())
            else:
                self.files[name], size = self.store.add(path, self.known.get(name), self.scratch)
                self.new_bytes += size

    def take_existing(self, root: Path, paths: Iterable[Path], part: str) -> None:
        """Copy those of `paths` that nobody removes meanwhile: a log, a prediction that was shipped."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self.take(root, [path], part)


def create_backup(settings: Settings, folder: Path, *, keep: int | None, report: Report, with_tables: bool = True) -> Backup:
    """Add a point of the installation, which may be working, to the backups in `folder`, and remove all but the newest `keep`.

    Only `with_tables` does it have fingerprints of the tables, for which this release must be able to read them.
    Raises StackError when there is no installation, when the folder cannot be used or is full, or when a server does not answer.
    """
    import psycopg2

    preflight.check_installation(settings)
    folder = folder.expanduser().resolve()
    if folder.is_relative_to(settings.home) or settings.home.is_relative_to(folder):
        raise StackError(
            f"The folder of the backups {folder} and the state folder {settings.home} are within each other: one would be lost with the other.",
            remedy="Name a folder on another disk.",
        )
    recipients = Recipients(settings.backup_recipients) if settings.backup_recipients else None
    store = BackupStore(folder, recipients)
    catalog = settings.postgres_connection_string(LAKE_DATABASE)
    try:
        with (
            control.storage(settings),
            store.locked() as scratch,
            keep_files(catalog),
            _plain_scratch(settings, scratch, recipients) as plain,
        ):
            return _create(settings, store, (scratch, plain), keep, report, with_tables)
    except OSError as error:
        raise file_fault(folder, error) from error
    except (LakeError, EventStreamError, psycopg2.Error) as error:
        raise StackError(str(error).strip(), remedy="See what does not run: mlops status") from error


@contextlib.contextmanager
def _plain_scratch(settings: Settings, scratch: Path, recipients: Recipients | None) -> Iterator[Path]:
    """The folder for what is dumped, which goes into the backup from there. What is encrypted is never on its disk in another form."""
    if recipients is None:
        yield scratch
        return
    for left in settings.home.glob(f"{_PLAIN}*"):
        shutil.rmtree(left)  # of a backup that was killed
    with tempfile.TemporaryDirectory(dir=settings.home, prefix=_PLAIN) as folder:
        yield Path(folder)


def _create(
    settings: Settings, store: BackupStore, folders: tuple[Path, Path], keep: int | None, report: Report, with_tables: bool
) -> Backup:
    began = time.monotonic()
    newest = store.newest()
    stored, scratch = folders
    copies = _Copies(store, stored, store.take_up(newest) if newest else {})
    report("Copying what waits to be written")
    # A prediction goes from the spool to the event stream to the lake: copied in this order it is in one of them, and the lake takes
    # it once.
    copies.take_existing(settings.home, state_files(settings.home, only=FIRST), STATE)
    (scratch / STREAMS).mkdir()
    streams = save_streams(event_stream_url(settings), scratch / STREAMS)
    copies.take(scratch / STREAMS, (scratch / STREAMS / name for name in streams), STREAMS)
    # Never newer than the lake: of what is pushed after a restore the store is given what changed since its snapshot.
    lmdb_store.copy_files(settings.online_store_directory, scratch / _ONLINE_STORE)
    report("Copying the databases")
    (scratch / DATABASES).mkdir()
    with databases.one_moment(settings) as moment:
        held = time.monotonic()
        name = _name(newest)
        copies.take_existing(settings.home, state_files(settings.home, only=AT_ONCE), STATE)
        moment.lake.execute("SELECT max(snapshot_id) FROM ducklake_snapshot")
        [(snapshot,)] = moment.lake.fetchall()
        lake_files = named_files(moment.lake)
        moment.lake.execute(_TABLES)
        tables = [table for (table,) in moment.lake.fetchall() if with_tables]
        databases.dump(settings, moment, scratch / DATABASES)
    held_seconds = time.monotonic() - held
    copies.take(scratch / DATABASES, sorted(path for path in (scratch / DATABASES).rglob("*") if path.is_file()), DATABASES)
    copies.take(scratch, sorted((scratch / _ONLINE_STORE).glob("*")), STATE)
    if settings.storage is None:
        # Files of the lake never change, and nobody removes one meanwhile.
        report(f"Copying {len(lake_files)} files of the lake")
        copies.take(settings.home, (settings.lake_directory / file for file in lake_files), STATE)
    report("Copying models and reports")
    copies.take_existing(settings.home, state_files(settings.home, without=(*FIRST, *AT_ONCE)), STATE)
    report(f"Reading {len(tables)} tables of the lake")
    writer = last_writer(settings)
    point = Point(
        format=FORMAT if store.recipients or settings.storage else UNENCRYPTED_FORMAT,
        name=name,
        home=str(settings.home),
        versions=writer.versions if writer else {PRODUCT: FIRST_RELEASE},
        snapshot=snapshot,
        tables=_contents(Lake.from_settings(settings), tables, snapshot) if tables else {},
        streams=streams,
        files=copies.files,
        links=copies.links,
        recipients=store.recipients.names if store.recipients else [],
        storage=settings.storage,
    )
    store.commit(point, stored)
    removed = store.prune(keep) if keep else 0
    return Backup(point, copies.new_bytes, removed, time.monotonic() - began, held_seconds)


def _name(newest: Point | None) -> str:
    moment = datetime.now(UTC)
    name = f"{moment:%Y-%m-%dT%H-%M-%S}.{moment.microsecond // 1000:03}Z"
    if newest and name <= newest.name:
        raise StackError(
            f"The clock of this machine shows {name}, and the newest backup is of {newest.name}.",
            remedy="Correct the clock, or name another folder.",
        )
    return name


def _contents(lake: Lake, tables: list[str], snapshot: int) -> dict[str, StoredTable]:
    with lake.connect(read_only=True) as connection:
        relations = {table: f"(FROM {lake_name(table)} AT (VERSION => {snapshot}))" for table in tables}
        return {table: StoredTable(*counted_fingerprint(connection, relation)) for table, relation in relations.items()}


def file_fault(folder: Path, error: OSError) -> StackError:
    """The message for a file that cannot be read or written while a backup to `folder` is made."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StackError(
            f"The disk of {folder} is full. The backups that were there are as they were.",
            remedy="Make room, or keep fewer backups there: --keep 7",
        )
    place = error.filename or folder
    return StackError(
        f"{place} cannot be used: {error.strerror}.", remedy="Correct its permissions, or name a folder that you own."
    )
