"""Backup, restore and comparison of an installation with its real Postgres and NATS, and a state folder that was moved."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg2
import pyrage
import pytest
from running_stack import Platform, new_home

from mlops_assets.access.credentials import event_stream_caller, event_stream_platform, event_stream_url
from mlops_assets.clients.event_stream import REJECTS, connect, subject
from mlops_assets.clients.publishing import Message
from mlops_assets.clients.stream_snapshots import last_numbers
from mlops_assets.core.settings import DATABASES, Settings
from mlops_assets.lake.catalog_files import follow_files
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import LakeError
from mlops_assets.local import control, lake_catalog, postgres
from mlops_assets.operations.backup.creation import file_fault
from mlops_assets.operations.backup.databases import one_moment
from mlops_assets.operations.backup.store import BackupStore

pytestmark = pytest.mark.long

FLIGHTS = "SELECT range AS id, range % 7 AS delay FROM range(1000)"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Postgres and NATS of an installation, with something in each of its parts."""
    with new_home() as settings, control.storage(settings):
        postgres.create_databases(settings)
        lake_catalog.ensure_catalog(settings)
        fill(settings)
        yield Platform(settings)


@pytest.fixture
def elsewhere() -> Iterator[Platform]:
    """An empty state folder, with other ports."""
    with new_home() as settings:
        yield Platform(settings)


def fill(settings: Settings) -> None:
    with Lake.from_settings(settings).connect(read_only=False) as connection:
        connection.execute(f"CREATE SCHEMA raw; CREATE TABLE raw.flights AS {FLIGHTS}; DELETE FROM raw.flights WHERE id = 3")
    for name in ("mlflow/artifacts/1/model", "serving/flight_delay/1/model.onnx", "spool/flight_delay/1.spool"):
        path = settings.home / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    (settings.home / "serving/flight_delay/champion").symlink_to("1")
    with psycopg2.connect(settings.postgres_connection_string("mlflow")) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE versions AS SELECT 1 AS version")
    asyncio.run(publish(settings, "first"))


async def publish(settings: Settings, text: str) -> None:
    async with connect(event_stream_url(settings), name="test", stopping=None) as stream:
        await stream.publish([Message(subject(REJECTS, "flight_delay"), text, text.encode())])


def test_a_restored_installation_is_equal_in_another_folder_and_on_another_postgres(
    platform: Platform, elsewhere: Platform, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    first = json.loads(platform.mlops("backup", str(folder), "--json").stdout)
    with platform.lake.connect(read_only=False) as connection:
        connection.execute("INSERT INTO raw.flights SELECT 2000 + range, 1 FROM range(100)")
    second = json.loads(platform.mlops("backup", str(folder), "--json").stdout)
    assert second["new_bytes"] < first["new_bytes"]
    assert_points_hold_no_secret(platform.settings, folder)
    assert "has 1,099 rows instead of 999" in platform.mlops("verify", str(folder), "--point", first["point"]).stdout

    restored = elsewhere.mlops("restore", str(folder))
    assert restored.returncode == 0, restored.stderr
    again = elsewhere.mlops("restore", str(folder))
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)
    with moved(elsewhere.settings) as there, control.storage(there.settings):
        assert_another_folder_does_not_take_the_catalog(there, f"{elsewhere.settings.lake_directory}/")
        lake_catalog.ensure_catalog(there.settings)
        compared = there.mlops("verify", str(folder))
        assert compared.returncode == 0, compared.stdout
        assert there.fingerprints() == platform.fingerprints()
        assert last_numbers(event_stream_url(there.settings))[REJECTS] == 1
        assert (there.settings.home / "serving/flight_delay/champion/model.onnx").is_file()
        assert (there.settings.home / "spool/flight_delay/1.spool").read_text() == "spool/flight_delay/1.spool"
        with there.lake.connect(read_only=False) as connection:
            connection.execute("INSERT INTO raw.flights SELECT 5000 + range, 1 FROM range(100)")
        assert_restored_to_postgres(folder, first["point"], there.settings)


@contextlib.contextmanager
def moved(settings: Settings) -> Iterator[Platform]:
    home = settings.home.with_name(f"{settings.home.name}.moved")
    settings.home.rename(home)
    there = Platform(replace(settings, home=home))
    try:
        yield there
    finally:
        control.down(there.settings)
        home.rename(settings.home)


def assert_points_hold_no_secret(settings: Settings, folder: Path) -> None:
    """The lists of what a backup holds, which a person may show; its files hold the keys."""
    secrets = [event_stream_platform(settings).password, event_stream_caller(settings).password]
    lists = [path.read_text() for path in (folder / "points").rglob("*") if path.is_file()]
    assert lists
    assert not [secret for secret in secrets for text in lists if secret in text]


def assert_another_folder_does_not_take_the_catalog(platform: Platform, folder: str) -> None:
    lake = replace(Lake.from_settings(platform.settings), data_directory=platform.settings.home / "another")
    with pytest.raises(LakeError, match=f"belongs to {folder}, and 2 of its files are not in"):
        follow_files(lake)


def assert_restored_to_postgres(folder: Path, point: str, server: Settings) -> None:
    """Restore with the Postgres of `server` as one of somebody else's, which has the databases at first."""
    with new_home() as empty:
        settings = replace(empty, postgres_url=f"postgresql://postgres:secret@/postgres?host={server.postgres_directory}")
        with_tables = Platform(settings).mlops("restore", str(folder))
        assert (with_tables.returncode, "Postgres has tables already in: mlflow, lake" in with_tables.stderr) == (1, True)
        assert list(settings.home.iterdir()) == []
        for database in DATABASES:
            drop_database(server, database)
        restored = Platform(settings).mlops("restore", str(folder), "--point", point)
        assert restored.returncode == 0, restored.stderr
        with Lake.from_settings(settings).connect(read_only=True) as connection:
            assert connection.execute("SELECT count(*), sum(delay) FROM raw.flights").fetchall() == [(999, 2994)]


def drop_database(settings: Settings, database: str) -> None:
    connection = psycopg2.connect(settings.postgres_maintenance_connection_string())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {database} WITH (FORCE)")
    connection.close()


def test_a_damaged_backup_is_named_and_leaves_the_folder_empty(platform: Platform, elsewhere: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    assert platform.mlops("backup", str(folder)).returncode == 0
    [model] = [
        path for path in (folder / "objects").rglob("*") if path.is_file() and path.read_bytes() == b"mlflow/artifacts/1/model"
    ]
    model.write_text("other")
    compared = platform.mlops("verify", str(folder), "--json")
    assert compared.returncode == 1
    [difference] = json.loads(compared.stdout)["differences"]
    assert difference["name"] == "state/mlflow/artifacts/1/model"
    restored = elsewhere.mlops("restore", str(folder))
    assert restored.returncode == 1
    assert f"{model}, which holds model, is missing or was changed" in restored.stderr
    assert list(elsewhere.settings.home.iterdir()) == []


def test_an_encrypted_backup_is_read_by_its_identity_alone(platform: Platform, elsewhere: Platform, tmp_path: Path) -> None:
    folder, canary = tmp_path / "backups", b"canary-9c41"
    (platform.settings.home / "spool/flight_delay/2.spool").write_bytes(canary)
    identities = [pyrage.x25519.Identity.generate() for _ in range(2)]
    for number, identity in enumerate(identities):
        (tmp_path / f"{number}.txt").write_text(f"{identity}\n")
    recipient = ("--recipient", str(identities[0].to_public()))
    first, second = (json.loads(platform.mlops("backup", str(folder), *recipient, "--json").stdout) for _ in range(2))
    assert second["new_bytes"] < first["new_bytes"]
    assert not list(platform.settings.home.glob(".backup.*"))
    secrets = [
        canary,
        b"CREATE TABLE",
        b"PGDMP",
        *(path.read_bytes().strip() for path in platform.settings.home.glob("*_password")),
    ]
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert (content.count(b"age-encryption.org/v1"), [secret for secret in secrets if secret in content]) == (
        len(list((folder / "objects").rglob("*/*"))),
        [],
    )
    clear = platform.mlops("backup", str(folder))
    assert (clear.returncode, "are encrypted, and this one would not be" in clear.stderr) == (1, True)
    assert platform.mlops("verify", str(folder)).returncode == 0
    for option, reason in (((), "is encrypted to age1"), (("--identity", str(tmp_path / "1.txt")), "does not open this backup")):
        refused = elsewhere.mlops("restore", str(folder), *option)
        assert (refused.returncode, reason in refused.stderr) == (1, True)
        assert list(elsewhere.settings.home.iterdir()) == []
    restored = elsewhere.mlops("restore", str(folder), "--identity", str(tmp_path / "0.txt"))
    assert restored.returncode == 0, restored.stderr
    with control.storage(elsewhere.settings):
        assert elsewhere.fingerprints() == platform.fingerprints()
    assert (elsewhere.settings.home / "spool/flight_delay/2.spool").read_bytes() == canary


def test_a_folder_that_cannot_hold_backups_is_refused(platform: Platform, tmp_path: Path) -> None:
    inside = platform.mlops("backup", str(platform.settings.home / "backups"))
    assert (inside.returncode, "within each other" in inside.stderr) == (1, True)
    (tmp_path / "file").write_text("in the way")
    unusable = platform.mlops("backup", str(tmp_path / "file"))
    assert (unusable.returncode, f"{tmp_path}/file cannot be used" in unusable.stderr) == (1, True)


def test_a_backup_that_fails_leaves_those_before_as_they_were(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    assert platform.mlops("backup", str(folder)).returncode == 0
    (folder / "objects").rename(folder / "kept")
    (folder / "objects").symlink_to("/dev/full")
    assert platform.mlops("backup", str(folder)).returncode == 1
    (folder / "objects").unlink()
    (folder / "kept").rename(folder / "objects")
    assert platform.mlops("verify", str(folder)).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "objects", "points"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "object").symlink_to("/dev/full")
    (tmp_path / "source").write_text("content")
    with pytest.raises(OSError, match="No space") as raised:
        BackupStore(tmp_path / "backups").add(tmp_path / "source", None, tmp_path)
    assert "The disk of /backups is full" in str(file_fault(Path("/backups"), raised.value))


def test_the_databases_of_a_backup_are_of_one_moment(platform: Platform) -> None:
    """What was written to one database after another is never there without it."""
    settings, stop = platform.settings, threading.Event()
    names = ("dagster", "mlflow")
    connections = [psycopg2.connect(settings.postgres_connection_string(name)) for name in names]
    for connection in connections:
        connection.autocommit = True
        connection.cursor().execute("SET synchronous_commit = off; CREATE TABLE numbers (number INTEGER)")

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for connection in connections:
                connection.cursor().execute("INSERT INTO numbers VALUES (%s)", [number])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            with one_moment(settings) as moment:
                newest = [newest_number(settings, name, moment.snapshots[name]) for name in names]
            assert newest[0] - newest[1] in (0, 1)
    finally:
        stop.set()
        writer.join()
        for connection in connections:
            connection.cursor().execute("DROP TABLE numbers")
            connection.close()


def newest_number(settings: Settings, database: str, snapshot: str) -> int:
    connection = psycopg2.connect(settings.postgres_connection_string(database))
    with connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT %s", [snapshot])
        cursor.execute("SELECT coalesce(max(number), 0) FROM numbers")
        [(number,)] = cursor.fetchall()
    connection.close()
    return int(number)
