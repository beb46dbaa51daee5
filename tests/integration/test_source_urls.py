"""Sources that are URLs, read from a real HTTP server: all digits, and errors that say whether another attempt helps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from http_files import FileServer, serve

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import PARSED, SourceError, parse
from mlops_assets.stages.faults import is_transient


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with serve(tmp_path) as running:
        yield running


def read(server: FileServer, name: str, file_format: str) -> list[tuple[Any, ...]]:
    table = {
        "description": "",
        "files": [server.url(name)],
        "format": file_format,
        "columns": {"id": {"type": "bigint"}, "seen": {"type": "varchar"}},
    }
    with (
        duckdb.connect(config={"extension_directory": str(DUCKDB_EXTENSION_DIRECTORY)}) as connection,
        parse(connection, RawTable.model_validate(table), directory=Path(), window=None),
    ):
        return connection.execute(f"SELECT id, seen FROM {PARSED} ORDER BY id").fetchall()


def test_instants_of_nanoseconds_keep_their_digits(server: FileServer, tmp_path: Path) -> None:
    seen = pa.array([1_700_000_000_000_000_123], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"id": [1], "seen": seen}), tmp_path / "seen.parquet")
    assert read(server, "seen.parquet", "parquet") == [(1, "2023-11-14 22:13:20.000000123+00")]


def test_an_answer_that_ends_too_early_may_be_whole_the_next_time(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "seen.csv").write_text("id,seen\n" + "1,a\n" * 100)
    server.cut.add("seen.csv")
    with pytest.raises(ConnectionError, match="did not arrive whole") as error:
        read(server, "seen.csv", "csv")
    assert is_transient(error.value)


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet"])
def test_a_file_that_a_server_lacks_is_not_asked_for_again(server: FileServer, name: str) -> None:
    with pytest.raises(SourceError, match="the server answers 404") as error:
        read(server, name, name.partition(".")[2])
    assert not is_transient(error.value)
