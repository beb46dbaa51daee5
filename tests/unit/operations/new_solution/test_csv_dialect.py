"""Delimiter, quotation and header of CSV files, and the lines before it."""

from pathlib import Path

import pytest
from new_tables import propose_text, raw_table, read_text

from mlops_assets.core.errors import StackError

ROWS = "".join(f"{number},{'ab'[number % 2]}\n" for number in range(20))


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_what_parts_every_line(tmp_path: Path, sign: str) -> None:
    text = "number,kind,text\n" + "".join(f'{number},{"ab"[number % 2]},"x; y | z, {number}"\n' for number in range(20))
    if sign != ",":
        text = "\n".join(sign.join(line.split(",", 2)) for line in text.splitlines()) + "\n"
    _, rows, questions = read_text(tmp_path, text)
    assert rows[1] == (1, "b", "x; y | z, 1")
    assert questions == []


def test_two_signs_that_part_every_line_are_asked(tmp_path: Path) -> None:
    text = "a;b,c;d\n" + "".join(f"{number};1,2;{'xy'[number % 2]}\n" for number in range(20))
    assert read_text(tmp_path, text)[2] == ["delimiter"]
    table, _, questions = read_text(tmp_path, text, delimiter="semicolon")
    assert (table.options, questions) == ({"delim": ";", "decimal_separator": ","}, [])


def test_a_file_without_a_header_needs_names(tmp_path: Path) -> None:
    text = "".join(f"{number / 10},{number},{'xy'[number % 2]}\n" for number in range(1, 20))
    with pytest.raises(StackError, match="--names column_1,column_2,column_3"):
        read_text(tmp_path, text)
    assert read_text(tmp_path, text, names=("share", "number", "kind"))[1][0] == (0.1, 1, "y")


@pytest.mark.parametrize(
    ("before", "skipped"),
    [
        ("# export of the shop\n# 2024-01-01\n#\n", 3),
        ("Report\nMade on,2024-01-01\n\n", 3),
        ("Report 2024,,\n,,\n", 2),
        ('"A title\nof two lines"\n', 2),
        ("\n", 0),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_before_the_header_are_skipped(tmp_path: Path, before: str, skipped: int, line_end: str) -> None:
    text = (before + "number,kind,label\n" + ROWS.replace("\n", ",x\n")).replace("\n", line_end)
    table, rows, questions = read_text(tmp_path, "\ufeff" + text)
    assert (table.options, questions) == ({"skip": skipped} if skipped else {}, [])
    assert (len(rows), rows[0]) == (20, (0, "a", "x"))


def test_the_line_of_excel_that_names_the_delimiter_is_skipped(tmp_path: Path) -> None:
    table, rows, _ = read_text(tmp_path, "sep=;\n" + "number;label\n" + ROWS.replace(",", ";"))
    assert (table.options, rows[1]) == ({"delim": ";", "skip": 1}, (1, "b"))


def test_a_value_that_is_like_the_label_makes_no_header(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="There is no column 'late'") as error:
        propose_text(tmp_path, "number,is_late\n" + ROWS + "20,late\n", label="late")
    assert "--skip" in error.value.remedy
    assert "is_late" in error.value.remedy


def test_lines_to_skip_can_be_given(tmp_path: Path) -> None:
    text = "made by,shop\n" + "size,label\n" + "".join(f"{number % 7},{'ab'[number % 2]}\n" for number in range(20))
    with pytest.raises(StackError, match="There is no column 'label'"):
        propose_text(tmp_path, text, label="label")
    assert raw_table(propose_text(tmp_path, text, label="label", skip=1)).options == {"skip": 1}
    table, rows, _ = read_text(tmp_path, "made by\n" + ROWS, names=("number", "label"), skip=1)
    assert (table.options["header"], rows[0]) == (False, (0, "a"))


@pytest.mark.parametrize("header", ["'number','text','label'", "number,text,label"])
@pytest.mark.parametrize("inside", ["one, two", "plain", "it''s", 'say "so"'])
def test_single_quotes_are_taken_off(tmp_path: Path, header: str, inside: str) -> None:
    text = f"{header}\n" + "".join(f"{number},'{inside}','{'ab'[number % 2]}'\n" for number in range(20))
    table, rows, questions = read_text(tmp_path, text)
    assert (table.options, questions) == ({"quote": "'"}, [])
    assert rows[1] == (1, inside.replace("''", "'"), "b")


@pytest.mark.parametrize("value", ["'twas", "o'clock", "\"'so'\"", "rock 'n' roll"])
def test_an_apostrophe_is_no_quote(tmp_path: Path, value: str) -> None:
    table, rows, _ = read_text(tmp_path, "number,text,label\n" + "".join(f"{number},{value},a\n" for number in range(20)))
    assert (table.options, rows[0][1]) == ({}, value.strip('"'))


def test_a_backslash_before_a_quote_is_seen(tmp_path: Path) -> None:
    text = "number,text,label\n" + "".join(f'{number},"say \\"so\\", twice",a\n' for number in range(20))
    table, rows, _ = read_text(tmp_path, text)
    assert (table.options, rows[0][1]) == ({"escape": "\\"}, 'say "so", twice')


def test_columns_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    rows = "".join(f"{number},{number % 3},{number % 5},{'ab'[number % 2]}\n" for number in range(20))
    notes = propose_text(tmp_path, "x,,y,label\n" + rows, label="label").notes
    assert any("A column has no name" in note for note in notes)
    proposal = propose_text(tmp_path, "x,x,y,label\n" + rows, label="label")
    assert any("x is the name of several columns" in note for note in proposal.notes)
    with pytest.raises(StackError, match="Several columns are called 'label'"):
        propose_text(tmp_path, "x,label,y,label\n" + rows, label="label")
