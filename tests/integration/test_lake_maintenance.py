"""Maintenance of the lake on a real Postgres: what must stay readable does, the rest goes, beside readers, writers, backups and kills."""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.core.settings import Settings
from mlops_assets.lake.catalog_files import keep_files
from mlops_assets.lake.datasets import dataset_information, find_dataset, rebuild_dataset
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakeMaintenance, LakePolicy, maintain_lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.table_changes import CHANGE, changes_since, newest_change
from mlops_assets.lake.tables import LakeError, current_snapshot, fingerprint, query_value, snapshot_at
from mlops_assets.maintenance.lake_maintenance import build_lake_maintenance
from mlops_assets.online_store.lmdb_store import LmdbStore

pytestmark = pytest.mark.long

SPAWN = multiprocessing.get_context("spawn")
POLICY = LakePolicy(kept_days=30, traced_days=365, grace_hours=24)
TABLE, LOG, DATASET, PREDICTIONS = "shop.orders", "shop.log", "shop.training_dataset", "shop.predictions"

MakeLake = Callable[[], Lake]
Content = Counter[tuple[object, ...]]


@pytest.fixture
def lake(make_lake: MakeLake) -> Lake:
    return make_lake()


@pytest.fixture
def connection(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with lake.connect(read_only=False) as opened:
        yield opened


def after_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def maintain(lake: Lake, *, days: float = 40, dry_run: bool = False) -> LakeMaintenance:
    return maintain_lake(lake, POLICY, now=after_days(days), dry_run=dry_run, report=lambda _: None)


def write_day(lake: Lake, connection: duckdb.DuckDBPyConnection, day: int, *, factor: int = 1, rows: int = 50) -> int:
    start = date(2020, 1, 1) + timedelta(days=day)
    query = f"SELECT DATE '{start}' AS day, i::INTEGER AS id, (i * {factor})::BIGINT AS amount FROM range({rows}) r(i)"
    within = PartitionRange(column="day", start=start, end=start + timedelta(days=1))
    return lake.replace(connection, table=TABLE, query=query, partition_range=within, author="test").snapshot


def append(lake: Lake, connection: duckdb.DuckDBPyConnection, name: str, rows: int) -> int:
    query = f"SELECT '{name}-' || i AS id, i::INTEGER AS number FROM range({rows}) r(i)"
    return lake.append(connection, table=LOG, query=query, identifier="id", author="test").snapshot


def content(connection: duckdb.DuckDBPyConnection, table: str, snapshot: int) -> Content:
    return Counter(connection.execute(f"FROM lake.{table} AT (VERSION => {snapshot})").fetchall())


def changes(connection: duckdb.DuckDBPyConnection, former: int) -> Content:
    query = changes_since(TABLE, former=former, last=current_snapshot(connection))
    rows = connection.execute(f"SELECT day, id, amount, sum({CHANGE}) AS net FROM ({query}) GROUP BY ALL HAVING net <> 0")
    return Counter({row[:-1]: row[-1] for row in rows.fetchall()})


def files(lake: Lake) -> dict[Path, float]:
    return {path: path.stat().st_mtime_ns for path in lake.data_directory.rglob("*.parquet")}


def record_dataset(lake: Lake, connection: duckdb.DuckDBPyConnection) -> str:
    snapshot = current_snapshot(connection)
    query = f"SELECT * FROM lake.{TABLE} AT (VERSION => {snapshot})"
    information = dataset_information(query=query, training_date=date(2020, 2, 1), source_snapshot=snapshot, feature_views={})
    written = lake.replace(connection, table=DATASET, query=query, partition_range=None, author="run", information=information)
    return written.fingerprint


def record_prediction(lake: Lake, connection: duckdb.DuckDBPyConnection, *, batch: int, online: int) -> None:
    lake.append(
        connection,
        table=PREDICTIONS,
        query=f"SELECT 'b' AS id, {batch} AS _source_snapshot, NULL::VARCHAR AS _view_snapshots "
        f"""UNION ALL SELECT 'o', NULL, '{{"orders": {online}, "other": null}}'""",
        identifier="id",
        author="test",
    )


def is_readable(connection: duckdb.DuckDBPyConnection, snapshot: int) -> bool:
    try:
        connection.execute(f"FROM lake.{TABLE} AT (VERSION => {snapshot}) LIMIT 1").fetchall()
    except duckdb.InvalidInputException:
        return False
    return True


def test_a_dataset_and_predictions_keep_their_snapshots_and_the_rest_goes(
    lake: Lake, connection: duckdb.DuckDBPyConnection
) -> None:
    began = datetime.now(UTC)
    snapshots = [write_day(lake, connection, day) for day in range(12)]
    identity = record_dataset(lake, connection)
    snapshots += [write_day(lake, connection, day, factor=2) for day in range(12)]
    for number in range(12):
        append(lake, connection, f"a{number}", 3)
    record_prediction(lake, connection, batch=snapshots[2], online=snapshots[14])
    pinned = (snapshots[2], snapshots[14])
    before, now = (
        {snapshot: content(connection, TABLE, snapshot) for snapshot in pinned},
        fingerprint(connection, f"lake.{TABLE}"),
    )
    done = maintain(lake)
    assert {snapshot: content(connection, TABLE, snapshot) for snapshot in before} == before
    assert fingerprint(connection, f"lake.{TABLE}") == now
    later = maintain(lake)  # removes the files that were merged
    readable = [snapshot for snapshot in snapshots if is_readable(connection, snapshot)]
    assert readable == [snapshots[2], snapshots[11], snapshots[14]]  # the dataset read the second
    assert rebuild_dataset(connection, find_dataset(connection, DATASET, identity)) == identity
    with pytest.raises(LakeError, match="has expired"):
        snapshot_at(connection, began + (datetime.now(UTC) - began) / 2)
    assert later.after is not None
    assert done.kept["training datasets"] == 2
    assert done.kept["predictions"] == 2
    assert later.after.snapshots < done.before.snapshots / 3
    assert later.after.files < done.before.files
    assert later.after.file_bytes < done.before.file_bytes
    assert later.after.catalog_rows < done.before.catalog_rows
    # Nothing is left to do.
    again = maintain(lake)
    assert (again.compacted, again.removed, again.orphans) == ([], [], [])


def test_the_snapshots_of_predictions_stay_for_the_time_that_they_are_traced_and_those_of_datasets_for_good(
    lake: Lake, connection: duckdb.DuckDBPyConnection
) -> None:
    snapshots = [write_day(lake, connection, day) for day in range(8)]
    identity = record_dataset(lake, connection)
    snapshots += [write_day(lake, connection, day, factor=2) for day in range(8)]
    record_prediction(lake, connection, batch=snapshots[2], online=snapshots[14])
    # A server that answers with old values keeps their snapshot for as long after it has answered.
    query = f"""SELECT 's' AS id, '{{"orders": {snapshots[11]}}}' AS _view_snapshots, now() + INTERVAL 100 DAY AS served_at"""
    lake.append(connection, table="shop.prediction_log", query=query, identifier="id", author="test")
    for day in range(8):
        write_day(lake, connection, day, factor=3)

    def readable() -> list[int]:
        return [snapshot for snapshot in snapshots if is_readable(connection, snapshot)]

    maintain(lake, days=364)
    assert readable() == [snapshots[2], snapshots[7], snapshots[11], snapshots[14]]
    done = maintain(lake, days=366)
    assert readable() == [snapshots[7], snapshots[11]]
    assert done.kept["predictions"] == 1
    assert {(number, number) for number in (snapshots[2], snapshots[14])} <= set(done.expired_numbers)
    maintain(lake, days=466)
    assert readable() == [snapshots[7]]
    assert rebuild_dataset(connection, find_dataset(connection, DATASET, identity)) == identity


def test_every_snapshot_of_the_last_days_stays(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    snapshots = [write_day(lake, connection, day) for day in range(12)]
    maintain(lake, days=29)
    assert all(is_readable(connection, snapshot) for snapshot in snapshots)
    assert snapshot_at(connection, datetime.now(UTC)) == current_snapshot(connection)


WRITES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([0, 2, 40])), min_size=4, max_size=8)


@settings(
    max_examples=examples(3), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(writes=WRITES, data=st.data())
def test_whatever_was_written_a_kept_snapshot_and_the_changes_since_it_read_the_same(
    make_lake: MakeLake, writes: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        snapshots = [write_day(lake, connection, day, factor=factor, rows=rows) for day, factor, rows in writes]
        connection.execute(f"DELETE FROM lake.{TABLE} WHERE id % 3 = 0")
        snapshots.append(current_snapshot(connection))
        kept = data.draw(st.sets(st.sampled_from(snapshots), min_size=1, max_size=3))
        policy = LakePolicy(kept_days=1, traced_days=1, grace_hours=1, needed=kept)
        for _ in range(2):
            for day in range(10):
                write_day(lake, connection, day, factor=4)
            before = {snapshot: (content(connection, TABLE, snapshot), changes(connection, snapshot)) for snapshot in kept}
            now = content(connection, TABLE, current_snapshot(connection))
            maintain_lake(lake, policy, now=after_days(40), dry_run=False, report=lambda _: None)
            assert content(connection, TABLE, current_snapshot(connection)) == now
            assert {s: (content(connection, TABLE, s), changes(connection, s)) for s in kept} == before


def test_a_dry_run_changes_nothing_and_finds_what_a_run_does(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    for day in range(12):
        write_day(lake, connection, day)
    (lake.data_directory / "left.parquet").write_bytes(b"left by a killed writer")
    before = files(lake), current_snapshot(connection)
    found = maintain(lake, dry_run=True)
    assert (files(lake), current_snapshot(connection)) == before
    done = maintain(lake)
    assert done.before == found.before
    assert (found.compacted, found.orphans) == (done.compacted, done.orphans) == ([TABLE], done.orphans)
    assert [Path(path).name for path in done.orphans] == ["left.parquet"]
    assert found.expired == done.expired


def test_an_orphan_is_removed_after_the_grace_period_and_no_file_that_is_named(
    lake: Lake, connection: duckdb.DuckDBPyConnection
) -> None:
    write_day(lake, connection, 0)
    orphan = lake.data_directory / "shop" / "orders" / "left.parquet"
    orphan.write_bytes(b"left by a killed writer")
    maintain(lake, days=0.9)
    assert orphan.exists()
    maintain(lake, days=1.1)
    assert not orphan.exists()
    assert query_value(connection, f"SELECT count(*) FROM lake.{TABLE}") == 50


def test_who_reads_or_writes_keeps_the_files_however_long_that_takes(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    for day in range(12):
        write_day(lake, connection, day)
    with lake.connect(read_only=True) as reader, lake.connect(read_only=False) as writer:
        reader.execute("BEGIN")
        before = Counter(reader.execute(f"FROM lake.{TABLE}").fetchall())
        writer.execute("BEGIN")
        writer.execute("CREATE TABLE lake.shop.large AS SELECT i FROM range(100000) r(i)")
        maintain(lake)
        for day in range(12):
            write_day(lake, connection, day, factor=3)
        assert maintain(lake).removed == []
        assert Counter(reader.execute(f"FROM lake.{TABLE}").fetchall()) == before
        writer.execute("COMMIT")
        assert query_value(writer, "SELECT count(*) FROM lake.shop.large") == 100_000
    assert maintain(lake).removed
    assert query_value(connection, f"SELECT sum(amount) FROM lake.{TABLE}") == 12 * 3 * sum(range(50))


def test_appends_go_on_during_maintenance(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        append(lake, connection, "first", 20)
    stop, faults = threading.Event(), list[BaseException]()
    appended = 0

    def write() -> None:
        nonlocal appended
        try:
            with lake.connect(read_only=False) as connection:
                while not stop.is_set():
                    append(lake, connection, f"c{appended}", 20)
                    appended += 1
        except BaseException as error:
            faults.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = [maintain(lake, days=0) for _ in range(6)]
    finally:
        stop.set()
        writer.join()
    assert faults == []
    with lake.connect(read_only=True) as connection:
        rows, identifiers = connection.execute(f"SELECT count(*), count(DISTINCT id) FROM lake.{LOG}").fetchall()[0]
    assert rows == identifiers == (appended + 1) * 20
    assert any(result.compacted for result in done)


def test_maintenance_waits_for_a_backup(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    for day in range(12):
        write_day(lake, connection, day)
    before = files(lake)
    with keep_files(lake.catalog):
        waiting = threading.Thread(target=maintain, args=(lake,))
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        assert files(lake) == before
    waiting.join()
    assert files(lake) != before  # of merged rows


def killed(lake: Lake, step: int) -> None:
    """Maintain the lake in a process that is killed before its `step`."""
    steps = iter(range(step + 1))

    def report(_: str) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    maintain_lake(lake, POLICY, now=after_days(40), dry_run=False, report=report)


def test_the_asset_shows_sizes_and_keeps_what_the_online_store_holds(
    lake: Lake, connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    for day in range(12):
        write_day(lake, connection, day)
    resources = {
        "lake": lake,
        "settings": Settings(home=tmp_path),
        "online_store": LmdbStore(tmp_path / "online_store"),
    }
    result = dg.materialize([build_lake_maintenance()], resources=resources)
    [made] = result.asset_materializations_for_node("platform__lake_maintenance")
    assert made.metadata["tables_merged"].value == [TABLE]
    assert made.metadata["files"].value == len(files(lake))
    assert made.metadata["snapshots_expired"].value == 0
    needed = maintain_lake(
        lake,
        LakePolicy(kept_days=1, traced_days=1, grace_hours=1, needed={3}),
        now=after_days(40),
        dry_run=False,
        report=lambda _: None,
    )
    assert needed.kept["online store"] == 1
    assert is_readable(connection, 3)


@pytest.mark.parametrize("steps", [[4], [4, 3, 2, 1, 0]], ids=["one", "all"])
def test_a_kill_between_two_steps_changes_no_row_and_the_next_maintenance_goes_on(
    lake: Lake, connection: duckdb.DuckDBPyConnection, steps: list[int]
) -> None:
    for step in steps:
        for day in range(12):
            write_day(lake, connection, day, factor=step)
        identity = fingerprint(connection, f"lake.{TABLE}")
        process = SPAWN.Process(target=killed, args=(lake, step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert fingerprint(connection, f"lake.{TABLE}") == identity
    # Killed while it removed: a file is gone, and still listed as one to remove.
    [(listed,)] = connection.execute(
        "SELECT count(*) FROM __ducklake_metadata_lake.ducklake_files_scheduled_for_deletion"
    ).fetchall()
    scheduled = maintain(lake, dry_run=True).removed
    assert len(scheduled) == listed > 0
    Path(scheduled[0]).unlink()
    assert set(scheduled) <= set(maintain(lake).removed)
    assert fingerprint(connection, f"lake.{TABLE}") == identity
    assert not set(scheduled) & set(maintain(lake).removed)


def test_rows_that_are_staged_for_reports_are_renewed_after_an_expired_change(
    lake: Lake, connection: duckdb.DuckDBPyConnection
) -> None:
    write_day(lake, connection, 0)
    first = newest_change(connection, [TABLE])
    write_day(lake, connection, 0, factor=2)
    second = newest_change(connection, [TABLE])
    append(lake, connection, "a", 20)
    maintain(lake)
    assert first is not None
    assert second is not None
    assert (newest_change(connection, [TABLE]) or 0) >= second > first
