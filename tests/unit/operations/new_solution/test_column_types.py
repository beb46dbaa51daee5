"""Types and spellings: every table that a program wrote is read back exactly as it was, and hostile columns get the type that keeps them."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from new_tables import propose_text, read_text


def column(*values: str, n: int = 60) -> list[str]:
    return [values[number % len(values)] for number in range(n)]


def table(columns: dict[str, list[str]], *, delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


LABEL = {"label": column("a", "b")}
KINDS_OF_VALUES: list[tuple[str, list[str]]] = [
    ("boolean", ["true", "FALSE"]),
    ("boolean", ["yes", "no"]),
    ("varchar", ["ja", "nein"]),
    ("varchar", ["t", "no"]),
    ("integer", ["1", "0"]),
    ("bigint", ["3000000000", "1"]),
    ("varchar", ["99999999999999999999", "1"]),
    ("varchar", ["007", "123"]),
    ("double", ["1.0", "2.5"]),
    ("double", ["1e3", "-2"]),
    ("integer", ["12", "nan"]),
    ("date", ["2024-01-31", "2024-02-01"]),
    ("date", ["31.01.2024", "01.02.2024"]),
    ("date", ["Jan 31, 2024", "Feb 01, 2024"]),
    ("timestamptz", ["2024-01-31 10:00:00", "2024-02-01T11:00"]),
    ("timestamptz", ["2024-01-31T10:00:00Z", "2024-02-01T11:00:00+02:00"]),
    ("timestamptz", ["01/31/2024 10:00 PM", "02/01/2024 11:00 AM"]),
    ("varchar", ["31.02.2024", "01.02.2024"]),
    ("varchar", ["10.0.0.1", "10.0.0.2"]),
    ("integer", ["20240131", "20240201"]),
    ("varchar", ["", ""]),
]


def test_a_column_has_the_narrowest_type_that_keeps_its_values(tmp_path: Path) -> None:
    columns = {f"{number} {kind}": column(*values) for number, (kind, values) in enumerate(KINDS_OF_VALUES)}
    read, rows, _ = read_text(tmp_path, table({**columns, **LABEL}))
    assert {name: read.columns[name].type for name in columns} == {name: name.partition(" ")[2] for name in columns}
    assert len(rows) == 60


def test_texts_for_nulls_are_found_where_they_keep_a_column_from_its_type(tmp_path: Path) -> None:
    columns = {"x": ["NA", *column("1", "2", n=59)], "y": ["?", *column("2024-01-01", "2024-01-02", n=59)], **LABEL}
    read, rows, _ = read_text(tmp_path, table(columns))
    assert read.null_strings == ["NA", "?"]
    assert (read.columns["x"].type, read.columns["y"].type) == ("integer", "date")
    assert rows[0][:2] == (None, None)


def test_a_text_among_numbers_is_told(tmp_path: Path) -> None:
    text = table({"x": ["n.a.", *column("1.5", "2", "3", n=59)], "y": [" ", *column("1.5", "2", "3", n=59)], **LABEL})
    proposal = propose_text(tmp_path, text, label="label")
    assert proposal.notes[0] == "x: 1 of 60 values are no numbers. If they mean a missing value, give --null TEXT."
    assert proposal.columns["y"]["type"] == "double", "a blank is a missing value"
    assert propose_text(tmp_path, text, label="label", null=("n.a.", " ")).columns["x"]["type"] == "double"


def test_a_german_file_is_read_with_its_signs(tmp_path: Path) -> None:
    columns = {
        "Größe": column("1.234,5", "2,25"),
        "Tag": column("13.01.2024", "01.12.2024"),
        "Stadt": column("Köln", "Bad Tölz; Kurort"),
        "label": column("ja", "nein"),
    }
    read, rows, questions = read_text(tmp_path, table(columns, delimiter=";").encode("cp1252"))
    assert read.options == {
        "encoding": "cp1252",
        "delim": ";",
        "decimal_separator": ",",
        "thousands": ".",
        "dateformat": "%d.%m.%Y",
    }
    assert rows[:2] == [
        (1234.5, date(2024, 1, 13), "Köln", "ja"),
        (2.25, date(2024, 12, 1), "Bad Tölz; Kurort", "nein"),
    ]
    # Which of the encodings of Western Europe it is, no byte says.
    assert questions == ["encoding"]


@pytest.mark.parametrize(("order", "wanted"), [(None, date(2024, 4, 3)), ("month-first", date(2024, 3, 4))])
def test_day_and_month_that_can_be_either_are_asked(tmp_path: Path, order: str | None, wanted: date) -> None:
    text = table({"day": column("03/04/2024", "12/05/2024"), **LABEL})
    _, rows, questions = read_text(tmp_path, text, date_format=order)
    assert questions == ([] if order else ["date_format"])
    assert rows[0][0] == wanted


def test_a_format_of_dates_that_nobody_knows_can_be_given(tmp_path: Path) -> None:
    text = table({"day": column("2024 week 05 day 3"), **LABEL})
    read, rows, _ = read_text(tmp_path, text, date_format="%G week %V day %u")
    assert (read.options, rows[0][0]) == ({"dateformat": "%G week %V day %u"}, date(2024, 1, 31))


def test_a_second_format_of_dates_is_an_expression(tmp_path: Path) -> None:
    read, rows, _ = read_text(tmp_path, table({"a": column("31.01.2024"), "b": column("2024-01-31"), **LABEL}))
    assert read.columns["a"].expression == "CAST(strptime(a_text, '%d.%m.%Y') AS DATE)"
    names = list(read.columns)
    assert (rows[0][names.index("a")], rows[0][names.index("b")]) == (date(2024, 1, 31), date(2024, 1, 31))


@pytest.mark.parametrize(("delimiter", "value", "question"), [(",", 1234, ["decimal"]), (";", 1.234, ["decimal"])])
def test_a_comma_before_three_digits_is_asked(tmp_path: Path, delimiter: str, value: float, question: list[str]) -> None:
    columns = {"amount": column("1,234", "5,678"), **LABEL}
    _, rows, questions = read_text(tmp_path, table(columns, delimiter=delimiter))
    assert (rows[0][0], questions) == (value, question)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    moments = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(60)]
    data = {
        "double": pa.array([Decimal("1.50"), Decimal("2.25")] * 30, pa.decimal128(10, 2)),
        "varchar": pa.array([Decimal("12345678901234567890.12"), Decimal(1)] * 30, pa.decimal128(30, 2)),
        "integer": pa.array([Decimal(7), Decimal(8)] * 30, pa.decimal128(10, 0)),
        "boolean": pa.array([True, None] * 30),
        "varchar 2": pa.array(["1", "2"] * 30),
        "timestamptz": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "timestamptz 2": pa.array([moment.replace(tzinfo=None) for moment in moments], pa.timestamp("ms")),
        "date": pa.array(["2024-01-31", "2024-02-01"] * 30),
        "varchar 3": pa.array([[1, 2], [3]] * 30),
        "label": pa.array([1.0, 0.0] * 30),
    }
    content = io.BytesIO()
    pq.write_table(pa.table(data), content)
    read, rows, _ = read_text(tmp_path, content.getvalue(), suffix=".parquet")
    kinds = {name: column.type for name, column in read.columns.items()}
    assert kinds == {name: name.partition(" ")[0] for name in data} | {"label": "integer"}
    assert rows[0][:5] == (1.5, "12345678901234567890.12", 7, True, "1")


@pytest.mark.parametrize("is_array", [False, True])
def test_json_may_lack_keys_and_nest(tmp_path: Path, is_array: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"n": number, "tags": ["a"], "label": "xy"[number % 2], **({"late": 1.5} if number > 3 else {})} for number in range(60)
    ]
    text = json.dumps(rows) if is_array else "\n".join(map(json.dumps, rows))
    read, found, _ = read_text(tmp_path, text, suffix=".json")
    kinds = {name: column.type for name, column in read.columns.items()}
    assert kinds == {"n": "integer", "tags": "varchar", "label": "varchar", "late": "double"}
    assert len(found) == 60


WORDS = st.text(alphabet="abcäöü ß'éÀ-", min_size=2, max_size=6).filter(
    lambda text: text.strip() == text and text not in ("-", "--")
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(2**31, 2**63 - 1),
    "double": st.floats(-1e6, 1e6).map(lambda number: round(number, 3)).filter(lambda number: number != int(number)),
    "varchar": WORDS,
    "date": st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    "boolean": st.booleans(),
}


@st.composite
def written_tables(draw: Any) -> tuple[str, dict[str, tuple[str, list[Any]]]]:
    """A CSV file as a program writes it, and the type and the values of each of its columns."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    comma = draw(st.booleans()) and delimiter != ","
    written = draw(st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"]))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    size = 40
    columns = {
        f"column {number}": (kind, draw(st.lists(KINDS[kind], min_size=size, max_size=size))) for number, kind in enumerate(kinds)
    }
    for number, (kind, values) in enumerate(columns.values()):
        # What makes the type and the order of day and month certain.
        certain = {"date": [date(2024, 1, 31), date(2023, 12, 30)], "boolean": [True, False], "bigint": [2**40], "double": [0.5]}
        values[: len(certain.get(kind, []))] = certain.get(kind, [])
        if kind == "varchar":
            values[0] = f"word{'' if number % 2 else delimiter}"

    def spelled(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return str(value).replace(".", ",") if comma else str(value)
        return value.strftime(written) if isinstance(value, date) else str(value)

    texts = {name: list(map(spelled, values)) for name, (_, values) in columns.items()}
    return table({**texts, "label": column("a", "b", n=size)}, delimiter=delimiter), columns


@settings(max_examples=examples(5), deadline=None, suppress_health_check=list(HealthCheck))
@given(written=written_tables())
def test_a_written_table_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[str, dict[str, tuple[str, list[Any]]]]
) -> None:
    folder = tmp_path_factory.mktemp("written")
    text, columns = written
    read, rows, _ = read_text(folder, text)
    assert {name: read.columns[name].type for name in columns} == {name: kind for name, (kind, _) in columns.items()}
    for number, (_, values) in enumerate(columns.values()):
        assert [row[number] for row in rows] == values
