"""Encoding of CSV files, as their bytes show it, and lines that are no rows."""

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


def test_lines_that_are_no_records_are_told(tmp_path: Path) -> None:
    proposal = propose_text(tmp_path, "n,kind\n" + ROWS + "1,2,3\n", label="kind")
    assert any("1 of 21 rows cannot be read" in note for note in proposal.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "things.csv is empty"), ("a,b\n", "has no rows"), ("a,b\n1,2,3\n", "None of 1 lines .* is a row of 2 columns")],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises((SourceError, StackError), match=message):
        read_text(tmp_path, content)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"encoding": "klingon"}, "There is no encoding 'klingon'"),
        ({"delimiter": ""}, "one to four characters long"),
        ({"quote": "ab"}, "`quote` is one character"),
        ({"escape": "ab"}, "`escape` is one character"),
        ({"decimal": "xx"}, "`decimal_separator` is one character"),
        ({"date_format": "foo"}, "'foo' is no format of dates"),
        ({"date_format": "%Q"}, "'%Q' is no format of dates"),
        ({"owner": "bob"}, "write team:bob, or an e-mail address"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_by_its_name(tmp_path: Path, answers: dict[str, str], message: str) -> None:
    rows = "".join(f"{number % 7},{'ab'[number % 2]}\n" for number in range(100))
    with pytest.raises(StackError, match=message):
        propose_text(tmp_path, "x,label\n" + rows, label="label", **answers)
