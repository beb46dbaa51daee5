"""Packed and foreign files of a source, and files that are not whole."""

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from file_rows import COLUMNS, CONNECTION, CONTENT, READ, read

from mlops_assets.schema.source import RawTable
from mlops_assets.sources import files as source_files
from mlops_assets.sources.reader import SourceError, parse


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return content.getvalue()


PACKED: dict[str, bytes] = {
    "f.csv.gz": gzip.compress(CONTENT, mtime=0),
    "f.csv.GZ": gzip.compress(CONTENT[:4], mtime=0) + gzip.compress(CONTENT[4:], mtime=0),
    "f.csv.bz2": bz2.compress(CONTENT),
    "f.csv.zst": pa.Codec("zstd").compress(CONTENT, asbytes=True),
    "f.ZIP": archive({"../../f.csv": CONTENT}),
    "mac.zip": archive({"d/": b"", "d/f.csv": CONTENT, "__MACOSX/d/._f.csv": b"\0", "d/.DS_Store": b"\0"}),
    "twice.zip": archive({"f.csv.gz": gzip.compress(CONTENT, mtime=0)}),
}


def damaged(content: bytes) -> bytes:
    """`content` with one byte changed, in a way that the check sums of the format find."""
    middle = content.index(b"f.csv") + 5 if b"f.csv" in content else 10
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("name", PACKED)
def test_packed_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name])
    assert read(tmp_path, name) == READ


@pytest.mark.parametrize("name", ["f.csv.gz", "f.csv.bz2", "f.csv.zst", "f.ZIP"])
@pytest.mark.parametrize("spoil", [lambda content: content[:-5], lambda content: b"a,b\n1,x\n", damaged])
def test_a_packed_file_that_is_not_whole_is_an_error_that_names_it(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]
) -> None:
    if name == "f.csv.zst" and spoil is damaged:
        # This one was written without a check sum: only its structure can be verified.
        spoil = lambda content: content[:4] + b"\xff" * 4 + content[8:]  # noqa: E731
    (tmp_path / name).write_bytes(spoil(PACKED[name]))
    with pytest.raises(SourceError, match=rf"{name}: the packed file is damaged, cut off"):
        read(tmp_path, name)


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(archive({"f.csv": b"a,b\n" + b"\0" * (65 << 20)}))
    with pytest.raises(SourceError, match=r"bomb\.zip: unpacking stopped at .* bytes"):
        read(tmp_path, "bomb.zip")


def test_an_archive_of_several_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "two.zip").write_bytes(archive({"a.csv": CONTENT, "b.csv": CONTENT}))
    with pytest.raises(SourceError, match=r"two\.zip: expected one file in the archive, there are 2"):
        read(tmp_path, "two.zip")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://data.org/daily/2.csv", True),
        ("https://data.org/daily/more/2.csv", True),
        ("https://data.org/2.csv", False),
        ("https://data.org/daily/../2.csv", False),
        ("https://data.org/daily/%2e%2e/2.csv", False),
        ("https://data.org/daily/%252e%252e/2.csv", False),
        ("https://data.org:8000/daily/2.csv", False),
        ("https://data.org@evil.org/daily/2.csv", False),
        ("http://data.org/daily/2.csv", False),
        ("file:///etc/passwd", False),
        ("s3://data.org/daily/2.csv", False),
    ],
)
def test_a_run_reads_urls_below_those_of_the_yaml_file(tmp_path: Path, url: str, allowed: bool) -> None:
    def confine() -> None:
        source_files.require_allowed_files(
            [url], own=["https://data.org/daily/1.csv?key=a"], directory=tmp_path, deliveries=tmp_path
        )

    if allowed:
        confine()
    else:
        with pytest.raises(SourceError, match="a run may read files below"):
            confine()


def test_columns_of_a_foreign_file_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"S3CRET\nS3CRET\n")
    declared = RawTable.model_validate({"description": "d", "format": "csv", "files": ["f.csv"], "columns": COLUMNS})
    with (
        pytest.raises(SourceError, match=r"f\.csv lacks the columns a, b; it has 1 others") as caught,
        parse(CONNECTION, declared, directory=tmp_path, window=None, own_files=["g.csv"]),
    ):
        pass
    assert "S3CRET" not in str(caught.value)
