"""The lake's files in a real object store: the rows of a folder, upkeep, a move, a store that is away, and no credentials in any file."""

import logging
import pickle
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from dbt_lake import call_dbt
from object_storage import SECRET, Door, ObjectStore

from mlops_assets.core.object_storage import ObjectFolder, StorageAwayError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.lake.branching import branch_catalog, lost_files
from mlops_assets.lake.catalog_files import follow_files
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakePolicy, maintain_lake
from mlops_assets.lake.part_files import PartFiles, part_target, write_part
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.tables import LakeError, fingerprint
from mlops_assets.monitoring.report_pages import fetch_report, report_path, write_report

pytestmark = pytest.mark.long

TABLE = "shop.orders"


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables of an installation; no credentials of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # MLflow keeps its client of a process for whoever has the same address here: another test's store is gone.
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", store.endpoint)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def lake(make_lake: Callable[[], Lake], store: ObjectStore, request: pytest.FixtureRequest) -> Lake:
    """A lake whose files are below a prefix of the test's own."""
    return replace(make_lake(), storage=ObjectFolder(f"s3://{store.bucket}/{request.node.name}/lake"))


def write_days(lake: Lake, days: int) -> str:
    """Write each day by itself, and return the fingerprint of the table."""
    with lake.connect(read_only=False) as connection:
        for day in range(days):
            query = f"SELECT DATE '2020-01-01' + {day} AS day, i AS id, i * 0.1 AS amount FROM range(50) r(i)"
            start = date(2020, 1, 1) + timedelta(days=day)
            within = PartitionRange(column="day", start=start, end=start + timedelta(days=1))
            lake.replace(connection, table=TABLE, query=query, partition_range=within, author="test")
        return fingerprint(connection, f"lake.{TABLE}")


def prefix(lake: Lake) -> str:
    return lake.data_path.removeprefix("s3://parcels/")


def test_the_rows_are_those_of_a_folder_and_nothing_is_on_this_disk(
    lake: Lake, make_lake: Callable[[], Lake], store: ObjectStore
) -> None:
    assert write_days(lake, 3) == write_days(make_lake(), 3)
    assert len([name for name in store.names(prefix(lake)) if name.endswith(".parquet")]) == 3
    assert not list(lake.data_directory.iterdir())
    before = store.names(prefix(lake))
    write_days(lake, 3)
    assert store.names(prefix(lake)) == before


def test_files_that_others_wrote_become_the_tables_and_those_of_no_use_are_removed(
    lake: Lake, make_lake: Callable[[], Lake], store: ObjectStore
) -> None:
    days = PartitionRange(column="day", start=date(2020, 1, 1), end=date(2020, 1, 4))

    def queries() -> list[str]:
        return [f"SELECT DATE '2020-01-01' + {day} AS day, i AS id, i * 0.1 AS amount FROM range(50) r(i)" for day in range(3)]

    def write() -> bool:
        with pickle.loads(pickle.dumps(lake)).connect(read_only=False) as connection:
            target = part_target(
                connection, table=TABLE, data_path=lake.data_path, partition_range=days, uncounted=None, counted="true"
            )
            files = PartFiles(target, [write_part(connection, target, query) for query in queries()])
            return lake.replace(connection, table=TABLE, query=files, partition_range=days, author="test").changed

    def parts() -> list[str]:
        return [name for name in store.names(prefix(lake)) if "/part-" in name]

    assert write()
    written = parts()
    assert len(written) == 3
    with lake.connect(read_only=True) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == write_days(make_lake(), 3)
    assert not write()
    assert parts() == written


def test_upkeep_merges_expires_and_removes_files_and_orphans(lake: Lake, store: ObjectStore) -> None:
    content = write_days(lake, 12)
    store.put(f"{prefix(lake)}shop/orders/left.parquet", b"left by a killed writer")
    before = store.names(prefix(lake))
    policy = LakePolicy(kept_days=1, traced_days=1, grace_hours=1)
    done = maintain_lake(lake, policy, now=datetime.now(UTC) + timedelta(days=40), dry_run=False, report=lambda _: None)
    assert done.compacted == [TABLE]
    assert done.expired
    assert (done.before.files, len(before)) == (13, 13)
    assert [Path(path).name for path in done.orphans] == ["left.parquet"]
    # What expires by a moment in the future is younger than this very connection: its files go the next time.
    assert "left.parquet" not in {Path(name).name for name in store.names(prefix(lake))}
    with lake.connect(read_only=True) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == content


def test_a_lake_moves_from_a_folder_with_a_copy_of_its_files(lake: Lake) -> None:
    local = replace(lake, storage=None)
    content = write_days(local, 2)
    with pytest.raises(LakeError, match=r"2 of its files are not in s3://parcels/.*, such as shop/orders/"):
        follow_files(lake)
    assert lake.storage is not None
    lake.storage.upload(local.data_directory)
    assert follow_files(lake)
    assert not follow_files(lake)
    with lake.connect(read_only=True) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == content


def test_dbt_writes_there(lake: Lake, store: ObjectStore, tmp_path: Path) -> None:
    done = call_dbt(lake, current_project().dbt_project, tmp_path, "seed", "--log-level-file", "debug")
    assert done.returncode == 0, done.stdout
    assert [name for name in store.names(prefix(lake)) if name.endswith(".parquet")]
    assert_hidden(tmp_path, done.stdout)


def test_a_branch_reads_there_and_writes_here(
    lake: Lake, create_database: Callable[[str], str], store: ObjectStore, tmp_path: Path
) -> None:
    content, before = write_days(lake, 3), store.names("")
    folder = tmp_path / "branch" / "lake"
    folder.mkdir(parents=True)
    branch = replace(
        lake, catalog=create_database("branch_of_objects"), data_directory=folder, storage=None, branched=lake.storage
    )
    branch_catalog(lake.catalog, branch.catalog, folder)
    with branch.connect(read_only=False) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == content
        connection.execute(f"DELETE FROM {TABLE} WHERE id < 10; INSERT INTO {TABLE} SELECT day, 1000 + id, 0 FROM {TABLE}")
        assert connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall() == [(240,)]
    done = call_dbt(branch, current_project().dbt_project, tmp_path / "target", "seed")
    assert done.returncode == 0, done.stdout
    assert list(folder.rglob("*.parquet")) != []
    assert (store.names(""), lost_files(branch)) == (before, [])
    with lake.connect(read_only=True) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == content
    file = next(name for name in before if name.startswith(prefix(lake)) and name.endswith(".parquet"))
    store.remove(file)
    assert lost_files(branch) == [f"s3://parcels/{file}"]


def test_a_store_that_is_away_is_waited_for(
    lake: Lake,
    make_lake: Callable[[], Lake],
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(Door(store.endpoint)) as door, caplog.at_level(logging.WARNING):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", door.endpoint)
        with door.shut_for(1.5):
            write_days(lake, 1)
        assert f"The object store at {door.endpoint} does not answer" in caplog.text
        assert "Waiting for it." in caplog.text
        with lake.connect(read_only=False) as connection:
            lake.replace(connection, table=TABLE, query="SELECT 1 AS id", partition_range=None, author="test")
            # In the middle of a step, DuckDB asks again.
            with door.shut_for(1.5):
                written = lake.replace(
                    connection, table=TABLE, query="SELECT i AS id FROM range(50) r(i)", partition_range=None, author="test"
                )
            assert written.rows == 50
            assert connection.execute(f"SELECT count(*) FROM lake.{TABLE}").fetchall() == [(50,)]


def test_a_store_that_refuses_is_named_with_the_remedy(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(LakeError, match=r"(?s)refuses s3://parcels/.*right to read and write") as error:
        lake.connect(read_only=True)
    assert "another" not in str(error.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "127.0.0.1:9000")
    assert lake.storage is not None
    with pytest.raises(LakeError, match="correct AWS_ENDPOINT_URL_S3"):
        replace(lake, storage=ObjectFolder(lake.storage.url)).connect(read_only=True)


def test_the_catalog_and_connections_hold_no_credentials(lake: Lake) -> None:
    write_days(lake, 1)
    with lake.connect(read_only=True) as connection:
        shown = repr(connection.execute("FROM duckdb_secrets()").fetchall()) + repr(
            connection.execute("FROM duckdb_settings()").fetchall()
        )
    with psycopg2.connect(lake.catalog) as catalog, catalog.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'ducklake%'")
        for (name,) in cursor.fetchall():
            cursor.execute(f'SELECT * FROM "{name}"')
            shown += repr(cursor.fetchall())
    assert SECRET not in shown


def test_a_page_is_read_on_another_machine(store: ObjectStore, tmp_path: Path) -> None:
    here, there = (Settings(home=tmp_path / name, storage=f"s3://{store.bucket}/pages") for name in ("here", "there"))
    place = write_report(here, "visits", "2020-01-01", "A page")
    assert place == "s3://parcels/pages/reports/visits/window-2020-01-01.html"
    assert not report_path(there, "visits", "2020-01-01").exists()
    assert fetch_report(there, "visits", "2020-01-01").read_text() == "A page"


def test_mlflow_keeps_artifacts_there(store: ObjectStore, tmp_path: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    (tmp_path / "model.onnx").write_bytes(b"a model")
    place = Settings(home=tmp_path, storage=f"s3://{store.bucket}/team").mlflow_artifact_location
    get_artifact_repository(place).log_artifact(str(tmp_path / "model.onnx"), "1/run/artifacts")
    assert store.read("team/mlflow/1/run/artifacts/model.onnx") == b"a model"


def test_objects_are_listed_replaced_and_removed(store: ObjectStore) -> None:
    folder = ObjectFolder(f"s3://{store.bucket}/objects")
    assert folder.objects() == {}
    assert folder.read("a/b") is None
    folder.write("a/b", b"one")
    folder.write("a/b", b"three")
    assert [(name, stored.size) for name, stored in folder.objects().items()] == [("a/b", 5)]
    assert folder.below("a").read("b") == b"three"
    folder.remove("a/b")
    folder.remove("a/b")
    assert folder.objects() == {}


def test_a_store_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StorageAwayError, match=r"at http://127\.0\.0\.1:1 does not answer"):
        ObjectFolder("s3://parcels/x").read("a")


def assert_hidden(folder: Path, text: str) -> None:
    assert SECRET not in text
    assert not [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
