"""Rows that several reports read, staged once from a real lake."""

from pathlib import Path

import duckdb
import pytest
from lake_in_folder import lake_in_folder

from mlops_assets.monitoring.staged_rows import ROWS, stage_once

QUERY = "SELECT * FROM lake.shop.orders ORDER BY id"


@pytest.fixture
def lake(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    connection = lake_in_folder(tmp_path)
    connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders AS SELECT 1 AS id, 2.50::DECIMAL(9, 2) AS price")
    return connection


def staged(connection: duckdb.DuckDBPyConnection, folder: Path, query: str = QUERY) -> list[tuple]:
    stage_once(connection, folder, query=query, tables=["shop.orders"])
    return connection.execute(f"FROM {ROWS}").fetchall()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_second_report_reads_the_file_of_the_first(lake: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = tmp_path / "staged"
    first = staged(lake, folder)
    [path] = folder.iterdir()
    written = path.stat().st_mtime_ns
    assert staged(lake_in_folder_again(lake), folder) == first == lake.execute(QUERY).fetchall()
    assert path.stat().st_mtime_ns == written
    assert lake.execute(f"SELECT typeof(price) FROM {ROWS}").fetchall() == [("DECIMAL(9,2)",)]


def lake_in_folder_again(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another step with a connection of its own to the same lake."""
    return connection.cursor()


def test_rows_that_changed_are_read_again(lake: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = tmp_path / "staged"
    assert len(staged(lake, folder)) == 1
    lake.execute("INSERT INTO shop.orders VALUES (2, 3)")
    assert len(staged(lake, folder)) == 2
    assert len(staged(lake, folder, "SELECT id FROM lake.shop.orders WHERE id > 1")) == 1
    assert len(files(folder)) == 3


def test_a_change_of_another_table_stages_nothing_again(lake: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = tmp_path / "staged"
    staged(lake, folder)
    lake.execute("CREATE TABLE shop.parcels AS SELECT 1 AS id")
    staged(lake, folder)
    assert len(files(folder)) == 1


def test_few_files_are_kept(lake: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = tmp_path / "staged"
    for number in range(7):
        staged(lake, folder, f"SELECT {number} AS number")
    assert len(files(folder)) == 4
    assert staged(lake, folder, "SELECT 6 AS number") == [(6,)]


def test_a_query_that_fails_leaves_no_file(lake: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = tmp_path / "staged"
    with pytest.raises(duckdb.Error):
        staged(lake, folder, "SELECT error('broken') FROM lake.shop.orders")
    assert files(folder) == set()
    assert staged(lake, folder) == lake.execute(QUERY).fetchall()


def test_of_a_view_rows_are_read_each_time(lake: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lake.execute("CREATE VIEW shop.expensive AS FROM shop.orders")
    folder = tmp_path / "staged"
    for count in (1, 2):
        stage_once(lake, folder, query="FROM lake.shop.expensive", tables=["shop.expensive"])
        assert len(lake.execute(f"FROM {ROWS}").fetchall()) == count
        lake.execute("INSERT INTO shop.orders VALUES (2, 3)")
    assert not folder.exists()
