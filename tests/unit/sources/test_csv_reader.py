"""CSV files whose headers, line ends or encodings are not the usual ones."""

from pathlib import Path
from typing import Any

import pytest
from file_rows import CONTENT, READ, read

from mlops_assets.sources.reader import SourceError


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
    "name", ["_source", "_reason", "_row", "line", "file_path", "s", "filename", "__mlops_column_0", "values"]
)
def test_columns_of_the_source_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "f.csv").write_text(f"{name},b\n1,x\n2\n")
    columns = {"a": {"type": "integer", "source": name}, "b": {"type": "varchar"}}
    assert read(tmp_path, "f.csv", columns=columns) == [(1, "x"), ("line 3: Expected Number of Columns: 2 Found: 1",)]
