"""A branch of a lake: all tables and snapshots without a copy of data, and writes that the lake never sees."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_assets.lake.branching import branch_catalog, lost_files
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakePolicy, maintain_lake
from mlops_assets.lake.tables import LakeError, current_snapshot


def _rows(lake: Lake, version: int | None = None) -> list[tuple[int, str]]:
    at = "" if version is None else f" AT (VERSION => {version})"
    with lake.connect(read_only=True) as connection:
        return connection.execute(f"SELECT * FROM shop.orders{at} ORDER BY ALL").fetchall()


def test_a_branch_reads_the_lake_and_writes_beside_it(
    make_lake: Callable[[], Lake], create_database: Callable[[str], str], tmp_path: Path
) -> None:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders AS SELECT i, 'first' AS state FROM range(1000) r(i)")
        snapshot = current_snapshot(connection)
        # Rows that are few are in the catalog itself, and deleted ones in files of their own.
        connection.execute("INSERT INTO shop.orders VALUES (1000, 'few')")
        connection.execute("DELETE FROM shop.orders WHERE i BETWEEN 100 AND 199")
    rows, files = _rows(lake), sorted(lake.data_directory.rglob("*"))
    branch = replace(lake, catalog=create_database("branch_of_a_lake"), data_directory=tmp_path / "branch")
    branch.data_directory.mkdir()
    branch_catalog(lake.catalog, branch.catalog, branch.data_directory)
    assert (len(rows), _rows(branch), len(_rows(branch, snapshot))) == (901, rows, 1000)
    assert list(branch.data_directory.rglob("*")) == []

    with branch.connect(read_only=False) as connection:
        connection.execute(
            "UPDATE shop.orders SET state = 'branched'; INSERT INTO shop.orders SELECT i, 'new' FROM range(5000, 6000) r(i)"
        )
        connection.execute("DROP TABLE shop.orders; CREATE TABLE shop.orders AS SELECT 1 AS i, 'other' AS state")
        connection.execute("CREATE TABLE shop.more AS SELECT 1 AS i FROM range(1000)")
    assert (_rows(lake), sorted(lake.data_directory.rglob("*"))) == (rows, files)
    assert _rows(branch) == [(1, "other")]
    assert len(_rows(branch, snapshot)) == 1000
    assert list(branch.data_directory.rglob("*.parquet")) != []

    with lake.connect(read_only=False) as connection:
        connection.execute("INSERT INTO shop.orders VALUES (7000, 'later')")
    assert (len(_rows(lake)), len(_rows(branch))) == (902, 1)


def test_nobody_removes_files_of_a_branch(
    make_lake: Callable[[], Lake], create_database: Callable[[str], str], tmp_path: Path
) -> None:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders AS SELECT i FROM range(1000) r(i)")
        # The first files belong to snapshots that the branch could let expire.
        connection.execute("CREATE OR REPLACE TABLE shop.orders AS SELECT i FROM range(2000) r(i)")
    files = sorted(lake.data_directory.rglob("*.parquet"))
    branch = replace(lake, catalog=create_database("branch_that_is_maintained"), data_directory=tmp_path / "branch")
    branch.data_directory.mkdir()
    branch_catalog(lake.catalog, branch.catalog, branch.data_directory)
    policy = LakePolicy(kept_days=0, traced_days=0, grace_hours=0)
    with pytest.raises(LakeError, match="a branch of another one"):
        maintain_lake(branch, policy, now=datetime.now(UTC) + timedelta(days=1), dry_run=False, report=lambda text: None)
    assert (sorted(lake.data_directory.rglob("*.parquet")), len(files) > 1) == (files, True)


def test_maintenance_keeps_the_files_that_a_branch_reads(
    make_lake: Callable[[], Lake], create_database: Callable[[str], str], tmp_path: Path
) -> None:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders AS SELECT i, 'first' AS state FROM range(1000) r(i)")
        for first in range(1000, 5000, 1000):
            connection.execute(f"INSERT INTO shop.orders SELECT i, 'next' FROM range({first}, {first} + 1000) r(i)")
    made, rows = datetime.now(UTC), _rows(lake)
    branch = replace(lake, catalog=create_database("branch_beside_maintenance"), data_directory=tmp_path / "branch")
    branch.data_directory.mkdir()
    branch_catalog(lake.catalog, branch.catalog, branch.data_directory)
    with lake.connect(read_only=False) as connection:
        connection.execute("DELETE FROM shop.orders WHERE i < 1000")

    def maintain(branched: datetime | None) -> None:
        policy = LakePolicy(kept_days=0, traced_days=0, grace_hours=0, branched=branched)
        # The files of what one maintenance merges and lets expire are removed by the next one.
        for days in (40, 80):
            maintain_lake(lake, policy, now=datetime.now(UTC) + timedelta(days=days), dry_run=False, report=lambda text: None)

    maintain(made)
    assert (len(_rows(lake)), _rows(branch), lost_files(branch)) == (4000, rows, [])
    maintain(None)
    assert len(_rows(lake)) == 4000
    assert all(name.startswith(f"{lake.data_directory}/shop/orders/") for name in lost_files(branch))
    assert lost_files(branch) != []
