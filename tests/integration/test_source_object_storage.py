"""Sources in object storage, read from a real server with the interface of S3, and errors that name what the environment lacks."""

import gzip
import io
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_storage import ObjectStore

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import PARSED, SourceError, parse
from mlops_assets.stages.faults import is_transient


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables of a team's `.env`; no credentials of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


def read(url: str, file_format: str, extensions: Path = DUCKDB_EXTENSION_DIRECTORY) -> list[tuple[Any, ...]]:
    columns = {"id": {"type": "bigint"}, "seen": {"type": "varchar"}}
    table = {"description": "", "files": [url], "format": file_format, "columns": columns}
    options = {"extension_directory": str(extensions), "autoinstall_known_extensions": False}
    with duckdb.connect(config=options) as connection, parse(connection, RawTable(**table), directory=Path(), window=None):
        return connection.execute(f"SELECT id, seen FROM {PARSED} ORDER BY id").fetchall()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "seen": ["a", "b"]}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("day=1/seen.csv", b"id,seen\n1,a\n2,b\n"),
        ("seen.csv.gz", gzip.compress(b"id,seen\n1,a\n2,b\n", mtime=0)),
        ("seen.json", b'{"id": 1, "seen": "a"}\n{"id": 2, "seen": "b"}\n'),
        ("seen.parquet", parquet()),
    ],
)
def test_rows_of_a_bucket(store: ObjectStore, name: str, content: bytes) -> None:
    assert read(store.put(name, content), name.split(".")[1]) == [(1, "a"), (2, "b")]


def test_credentials_of_a_profile(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, secret = store.environment["AWS_ACCESS_KEY_ID"], store.environment["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "depot")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(f"[depot]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    assert read(store.put("profile.csv", b"id,seen\n1,a\n"), "csv") == [(1, "a")]


@pytest.mark.parametrize("url", ["s3://parcels/absent.csv", "s3://parcels/absent.parquet", "s3://absent/seen.csv"])
def test_a_file_that_a_bucket_lacks_is_not_asked_for_again(url: str) -> None:
    with pytest.raises(SourceError, match="the server answers 404") as error:
        read(url, url.rpartition(".")[2])
    assert not is_transient(error.value)


def test_a_key_that_may_not_read_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.put("secret.csv", b"id,seen\n1,a\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(SourceError, match="the server answers 403"):
        read(url, "csv")


def test_a_server_that_is_away_may_be_back_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(duckdb.IOException) as error:
        read("s3://parcels/seen.csv", "csv")
    assert is_transient(error.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_ENDPOINT_URL_S3", "store.example.org:9000", "correct AWS_ENDPOINT_URL_S3"),
        ("AWS_S3_ADDRESSING_STYLE", "dns", "neither path nor virtual"),
        ("AWS_ACCESS_KEY_ID", "", "there are no credentials for S3"),
    ],
)
def test_an_environment_that_is_wrong_is_named(variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SourceError, match=message) as error:
        read("s3://parcels/seen.csv", "csv")
    assert not is_transient(error.value)


def test_buckets_in_the_name_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", "virtual")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.invalid:9")
    with pytest.raises(duckdb.IOException, match=r"http://parcels\.store\.invalid:9/seen\.csv"):
        read("s3://parcels/seen.csv", "csv")


def test_an_installation_without_the_extra_names_it(tmp_path: Path) -> None:
    shutil.copytree(DUCKDB_EXTENSION_DIRECTORY, tmp_path / "extensions", ignore=shutil.ignore_patterns("aws.*"))
    with pytest.raises(SourceError, match=r"install mlops-assets\[s3\], then run `mlops prepare`"):
        read("s3://parcels/seen.csv", "csv", tmp_path / "extensions")
