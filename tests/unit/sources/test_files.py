"""Packed, broken and foreign files of a source, and files whose records, encodings or types are not the usual ones."""

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from mlops_assets.schema.source import RawTable
from mlops_assets.sources import files as source_files
from mlops_assets.sources.reader import PARSED, REASON, SourceError, parse

CONNECTION = duckdb.connect(config={"threads": 1})
CONTENT = b"a,b\n1,x\n2,y\n"
READ = [(1, "x"), (2, "y")]
COLUMNS = {"a": {"type": "integer"}, "b": {"type": "varchar"}}


def read(folder: Path, *files: str, **table: Any) -> list[tuple[Any, ...]]:
    """The rows of CSV files; those that are rejected have their reason in place of the values."""
    declared = RawTable.model_validate({"description": "d", "format": "csv", "files": files, "columns": COLUMNS, **table})
    with parse(CONNECTION, declared, directory=folder, window=None):
        names = ", ".join(declared.columns)
        accepted = CONNECTION.execute(f"SELECT {names} FROM {PARSED} WHERE {REASON} IS NULL").fetchall()
        return accepted + CONNECTION.execute(f"SELECT {REASON} FROM {PARSED} WHERE {REASON} IS NOT NULL").fetchall()


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return content.getvalue()


PACKED: dict[str, bytes] = {
    "f.csv.gz": gzip.compress(CONTENT),
    "f.csv.GZ": gzip.compress(CONTENT[:4]) + gzip.compress(CONTENT[4:]),
    "f.csv.bz2": bz2.compress(CONTENT),
    "f.csv.zst": pa.Codec("zstd").compress(CONTENT, asbytes=True),
    "f.ZIP": archive({"../../f.csv": CONTENT}),
    "mac.zip": archive({"d/": b"", "d/f.csv": CONTENT, "__MACOSX/d/._f.csv": b"\0", "d/.DS_Store": b"\0"}),
    "twice.zip": archive({"f.csv.gz": gzip.compress(CONTENT)}),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name])
    assert read(tmp_path, name) == READ


def damaged(content: bytes) -> bytes:
    """`content` with one byte changed, in a way that the check sums of the format find."""
    middle = content.index(b"f.csv") + 5 if b"f.csv" in content else 10
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


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
        source_files.confine([url], own=["https://data.org/daily/1.csv?key=a"], directory=tmp_path, deliveries=tmp_path)

    if allowed:
        confine()
    else:
        with pytest.raises(SourceError, match="a run may read files below"):
            confine()


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("größe,b\n1,é\n".encode("utf-8-sig"), {}),
        ("größe,b\n1,é\n".encode("utf-16"), {}),
        ("größe,b\n1,é\n".encode("utf-16-be"), {"encoding": "utf-16-be"}),
        ("größe,b\n1,é\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("größe,b\r\n1,é\r\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("größe||b\n1||é\n".encode(), {"delim": "||"}),
        ("\n\r\ngröße,b\n1,é\n".encode(), {}),
        ("größe,b\r\n1,é\n".encode(), {}),
        ("größe,b\n1,é\r".encode(), {}),
        ('"größe","b"\n"1","é"'.encode(), {}),
        ("# title\ngröße,b\n1,é\n".encode(), {"comment": "#"}),
        ("'größe';b\n1;é\n".encode(), {"delim": ";", "quote": "'"}),
    ],
)
def test_a_header_is_a_record_in_the_encoding_of_the_file(tmp_path: Path, content: bytes, options: dict[str, Any]) -> None:
    (tmp_path / "f.csv").write_bytes(content)
    columns = {"a": {"type": "integer", "source": "größe"}, "b": {"type": "varchar"}}
    assert read(tmp_path, "f.csv", columns=columns, options=options) == [(1, "é")]


def test_line_ends_within_quotes_stay(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b'a,"b\nc"\r\n1,"x\r\n""y"\n2,5" pipe\r3,"z\rz"\r\n')
    columns = {"a": {"type": "integer"}, "b": {"type": "varchar", "source": "b\nc"}}
    assert read(tmp_path, "f.csv", columns=columns) == [(1, 'x\r\n"y'), (2, '5" pipe'), (3, "z\rz")]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_end_in_the_first_name_does_not_hide_the_rows(tmp_path: Path, mark: bytes, end: bytes) -> None:
    (tmp_path / "f.csv").write_bytes(mark + b'"b\nc",a' + end + b"x,1" + end)
    columns = {"a": {"type": "integer"}, "b": {"type": "varchar", "source": "b\nc"}}
    assert read(tmp_path, "f.csv", columns=columns) == [(1, "x")]
    named = {"header": False, "names": ["b\nc", "a"]}
    (tmp_path / "f.csv").write_bytes(mark + b'"x\ny",1' + end + b"z,2" + end)
    assert read(tmp_path, "f.csv", columns=columns, options=named) == [(1, "x\ny"), (2, "z")]


def test_a_byte_that_the_encoding_does_not_have_costs_its_line(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"a,b\n1,\x81\n2,y\n")
    rows = read(tmp_path, "f.csv", options={"encoding": "cp1252"})
    assert rows[0] == (2, "y")
    assert len(rows) == 2
    assert rows[1][0].startswith("line 2: ")


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(CONTENT)
    (tmp_path / "g.csv").write_bytes(b"A,b\n3,z\n")
    with pytest.raises(SourceError, match=r"g\.csv lacks the columns a \(nearest: A\)"):
        read(tmp_path, "f.csv", "g.csv")
    columns = {"a": {"type": "integer", "optional": True}, "b": {"type": "varchar"}}
    assert read(tmp_path, "f.csv", "g.csv", columns=columns) == [*READ, (None, "z")]


def test_a_name_twice_in_the_header_is_an_error_if_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"a,b,b\n1,x,y\n")
    with pytest.raises(SourceError, match=r"f\.csv has several columns that are called b"):
        read(tmp_path, "f.csv")
    assert read(tmp_path, "f.csv", columns={"a": {"type": "integer"}}) == [(1,)]


@pytest.mark.parametrize(
    ("kind", "options", "text", "expected"),
    [
        ("date", {"dateformat": "%d.%m.%Y"}, "05.01.2024", "2024-01-05"),
        ("date", {"dateformat": "%d.%m.%Y"}, "2024-01-05", None),
        ("date", {"dateformat": "%d.%m.%Y"}, "05.01.24", None),
        ("timestamp", {"timestampformat": "%d.%m.%Y %H:%M"}, "05.01.2024 10:30", "2024-01-05 10:30:00"),
        ("timestamptz", {"timestampformat": "%d.%m.%Y %H:%M"}, "05.01.2024 10:30", "2024-01-05 10:30:00"),
        ("timestamptz", {"timestampformat": "%d.%m.%Y %H:%M %z"}, "05.01.2024 10:30 +0200", "2024-01-05 08:30:00"),
        ("double", {"decimal_separator": ","}, "1,5", "1.5"),
        ("double", {"decimal_separator": ","}, "1.5", None),
        ("double", {"decimal_separator": ",", "thousands": "."}, "-1.234.567,5", "-1234567.5"),
        ("double", {"decimal_separator": ",", "thousands": "."}, "1.23,5", None),
        ("bigint", {"thousands": " "}, "1 234", "1234"),
    ],
)
def test_formats_that_the_yaml_file_states(
    tmp_path: Path, kind: str, options: dict[str, Any], text: str, expected: str | None
) -> None:
    (tmp_path / "f.csv").write_text(f"a;\n{text};\n")
    declared = {"a": {"type": kind}}
    shown = {
        "a": declared["a"],
        "shown": {"type": "varchar", "expression": "a" if kind != "timestamptz" else "a AT TIME ZONE 'UTC'"},
    }
    [row] = read(tmp_path, "f.csv", columns=shown, options={"delim": ";", **options})
    assert row == (f"a: {text} is no {kind}",) if expected is None else row[1] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"nonsense": 1}}, "`nonsense` has no effect on csv files"),
        ({"options": {"new_line": "\\n"}}, "line ends are detected"),
        ({"options": {"header": False}}, "needs the option `names`"),
        ({"options": {"encoding": "klingon"}}, "no encoding of Python's codecs"),
        ({"options": {"encoding": "base64"}}, "no encoding of Python's codecs"),
        ({"options": {"delim": ""}}, "one to four characters"),
        ({"options": {"thousands": "."}}, "must be two signs"),
        ({"options": {"compression": "lzo"}}, "the compression 'lzo' is not supported"),
        ({"format": "parquet", "options": {"dateformat": "%d"}}, "has no effect on parquet files"),
        ({"columns": {"a": {"type": "integer", "source": "b", "expression": "1"}}}, "are of a column that is read"),
    ],
)
def test_what_would_have_no_effect_is_refused_at_load(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RawTable.model_validate({"description": "d", "format": "csv", "files": ["f.csv"], "columns": COLUMNS, **change})


@pytest.mark.parametrize(
    ("cadence", "start", "message"),
    [
        ("monthly", "2024-01-10", "Set start to 2024-01-01 to load them, or to 2024-02-01"),
        ("weekly", "2024-01-10", "Set start to 2024-01-08 to load them, or to 2024-01-15"),
        ("yearly", "2024-01-10", "Set start to 2024-01-01 to load them, or to 2025-01-01"),
        ("monthly", "2024-01-01", None),
        ("weekly", "2024-01-08", None),
        ("daily", "2024-01-10", None),
    ],
)
def test_partitions_begin_at_the_start_of_their_period(cadence: str, start: str, message: str | None) -> None:
    columns = {"day": {"type": "date"}}
    table = {"description": "d", "format": "csv", "files": ["f.csv"], "columns": columns}
    table["partitions"] = {"column": "day", "start": start, "cadence": cadence}
    if message is None:
        RawTable.model_validate(table)
    else:
        with pytest.raises(ValidationError, match=message):
            RawTable.model_validate(table)


def test_json_by_the_line_and_in_an_array(tmp_path: Path) -> None:
    columns = {"a": {"type": "varchar"}, "b": {"type": "double", "optional": True}}
    lines = (
        '{"a": 1.10, "b": 1}\n\n{"a": 9007199254740993}\r\n{"a": 2,\n{"a": {"x": [1.10, "1.10"]}, "b": 1.5}\n{"a": 1, "a": 2}\n'
    )
    (tmp_path / "f.json").write_text(lines)
    rows = [("1.10", 1.0), ("9007199254740993", None), ('{"x":[1.10,"1.10"]}', 1.5), ("has a key twice",), ("is no JSON",)]
    assert sorted(map(str, read(tmp_path, "f.json", format="json", columns=columns))) == sorted(map(str, rows))
    (tmp_path / "f.json").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}')
    rows = read(tmp_path, "f.json", format="json", columns=columns)
    assert rows[:2] == [("1", None), ("3", None)]
    assert rows[2][0].startswith("line 2: ")
    (tmp_path / "f.json").write_text('[\n{"a": 1e3, "b": 2},\n 5\n]')
    assert read(tmp_path, "f.json", format="json", columns=columns) == [("1e3", 2.0), ("is no JSON object",)]
    (tmp_path / "f.json").write_text('{\n"a": 1\n}\n{\n"a": "2"\n}')
    assert read(tmp_path, "f.json", format="json", columns=columns) == [("1", None), ("2", None)]
    (tmp_path / "f.json").write_text('{"b": 6.868531932247569e+16, "a": 1}\n{"b": 9007199254740993.0}')
    rows = read(tmp_path, "f.json", format="json", columns=columns)
    assert rows == [("1", 6.868531932247569e16), ("b: 9007199254740993.0 is no double",)]
    (tmp_path / "f.json").write_text("")
    assert read(tmp_path, "f.json", format="json", columns=columns) == []


def test_a_late_value_of_another_kind_costs_nothing(tmp_path: Path) -> None:
    lines = [json.dumps({"a": number}) for number in range(30_000)] + ['{"a": 1.5, "late": 1}', '{"a": "x"}']
    (tmp_path / "f.json").write_text("\n".join(lines))
    rows = read(tmp_path, "f.json", format="json", columns={"a": {"type": "double"}})
    assert rows[-2:] == [(1.5,), ("a: x is no double",)]
    assert len(rows) == 30_002


def test_the_folder_of_a_parquet_file_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "b=2").mkdir()
    pq.write_table(pa.table({"a": [1], "b": ["1"]}), tmp_path / "b=2" / "f.parquet")
    assert read(tmp_path, "b=2/f.parquet", format="parquet") == [(1, "1")]
    with pytest.raises(SourceError, match="the folder and the file both have a column b"):
        read(tmp_path, "b=2/f.parquet", format="parquet", options={"hive_partitioning": True})
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b=2" / "f.parquet")
    assert read(tmp_path, "b=2/f.parquet", format="parquet", options={"hive_partitioning": True}) == [(1, "2")]


def test_what_duckdb_cannot_hold_exactly(tmp_path: Path) -> None:
    table = {"a": pa.array([1], pa.time64("ns")), "b": pa.array([[Decimal("0.50")]], pa.list_(pa.decimal128(2, 2)))}
    table["d"] = pa.array([Decimal("-0.50")], pa.decimal128(2, 2))
    pq.write_table(pa.table(table | {"c": pa.array([Decimal("1.5")], pa.decimal256(50, 3))}), tmp_path / "f.parquet")
    columns = {"a": {"type": "varchar"}, "b": {"type": "varchar"}, "d": {"type": "varchar"}}
    assert read(tmp_path, "f.parquet", format="parquet", columns=columns) == [("00:00:00.000000001", '[".50"]', "-0.50")]
    with pytest.raises(SourceError, match=r"f\.parquet: the numbers of the column c have more than 38 digits"):
        read(tmp_path, "f.parquet", format="parquet", columns={"c": {"type": "varchar"}})


def test_nanoseconds_are_kept_or_named(tmp_path: Path) -> None:
    columns = {"a": {"type": "timestamptz"}}
    pq.write_table(pa.table({"a": pa.array([1_000, 1_001], pa.timestamp("ns", "UTC"))}), tmp_path / "f.parquet")
    rows = read(tmp_path, "f.parquet", format="parquet", columns=columns)
    assert len(rows) == 2
    assert rows[1] == ("a: 1970-01-01 00:00:00.000001001 is no timestamptz",)
    for nanoseconds, is_right in ((5_000, True), (5_001, False)):
        table = pa.table({"a": pa.array([nanoseconds, None], pa.timestamp("ns"))})
        pq.write_table(table, tmp_path / "old.parquet", use_deprecated_int96_timestamps=True)
        if is_right:
            assert len(read(tmp_path, "old.parquet", format="parquet", columns=columns)) == 2
        else:
            with pytest.raises(SourceError, match=r"old\.parquet: the times of the column a \(INT96\) have nanoseconds"):
                read(tmp_path, "old.parquet", format="parquet", columns=columns)


@pytest.mark.parametrize("spoil", [lambda content: content[:-20], lambda content: content[:4] + b"\0" * 40 + content[44:]])
def test_a_broken_parquet_file_is_an_error_without_its_content(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["S3CRET", "S3CRET"]}), tmp_path / "f.parquet")
    (tmp_path / "f.parquet").write_bytes(spoil((tmp_path / "f.parquet").read_bytes()))
    with pytest.raises(SourceError, match=r"f\.parquet: it cannot be read as parquet") as caught:
        read(tmp_path, "f.parquet", format="parquet")
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_columns_of_a_foreign_file_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"S3CRET\nS3CRET\n")
    declared = RawTable.model_validate({"description": "d", "format": "csv", "files": ["f.csv"], "columns": COLUMNS})
    with (
        pytest.raises(SourceError, match=r"f\.csv lacks the columns a, b; it has 1 others") as caught,
        parse(CONNECTION, declared, directory=tmp_path, window=None, own_files=["g.csv"]),
    ):
        pass
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["_source", "_reason", "_row", "line", "file_path", "s", "filename", "__mlops_column_0", "values"]
)
def test_columns_of_the_source_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "f.csv").write_text(f"{name},b\n1,x\n2\n")
    columns = {"a": {"type": "integer", "source": name}, "b": {"type": "varchar"}}
    assert read(tmp_path, "f.csv", columns=columns) == [(1, "x"), ("line 3: Expected Number of Columns: 2 Found: 1",)]
