"""Encoding, delimiter and header of CSV files, as their bytes show them."""

from pathlib import Path

import pytest
from new_tables import propose_text, read_text

from mlops_assets.core.errors import StackError
from mlops_assets.sources.extract import SourceError

ROWS = "".join(f"{number},{'ab'[number % 2]}\n" for number in range(20))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_file_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    _, rows, questions = read_text(tmp_path, ("zahl,größe\n" + ROWS.replace("a", "ä")).encode(encoding))
    assert rows[0] == (0, "ä")
    assert questions == (["encoding"] if encoding == "cp1252" else [])


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


def test_lines_that_are_no_records_are_told(tmp_path: Path) -> None:
    proposal = propose_text(tmp_path, "n,kind\n" + ROWS + "1,2,3\n", label="kind")
    assert any("1 of 21 rows cannot be read" in note for note in proposal.notes)


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), ("a,b\n", "has no rows")])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises((SourceError, StackError), match=message):
        read_text(tmp_path, content)
