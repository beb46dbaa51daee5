"""Texts that are meant to be numbers or times: what keeps them from it is told."""

from pathlib import Path

import pytest
from new_tables import propose_text, types

from mlops_assets.core.errors import StackError

DAYS = [f"{number % 28 + 1:02}.03.2024 {number % 24:02}:15" for number in range(100)]
NUMBERS = [f"{number},5" for number in range(100)]


def text_of(values: list[str]) -> str:
    return "x;y;label\n" + "".join(f"{value};{number % 7};{'ab'[number % 2]}\n" for number, value in enumerate(values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([*DAYS[:98], "30.03.2024 24:00", "31.04.2024 10:00"], "x: 2 of 100 values are no times, such as 24:00"),
        ([*NUMBERS[:97], *["fehlt"] * 3], "x: 3 of 100 values are no numbers"),
        ([f"{value} €" for value in NUMBERS], "CAST(replace(replace(x, '€', ''), ',', '.') AS DOUBLE)"),
        ([f"{number}%" for number in range(100)], "CAST(replace(x, '%', '') AS DOUBLE)"),
        ([f"{number} km" for number in range(100)], "CAST(replace(x, 'km', '') AS DOUBLE)"),
    ],
)
def test_what_keeps_a_column_from_its_type_is_told(tmp_path: Path, values: list[str], problem: str) -> None:
    proposal = propose_text(tmp_path, text_of(values), label="label")
    assert types(proposal)["x"] == "varchar"
    [note] = [note for note in proposal.notes if note.startswith("x:")]
    assert problem in note


@pytest.mark.parametrize("values", [["a 1", "b 2"], ["12 km", "3 kg"], ["x", "y"], ["10.0.0.1", "10.0.0.2"]])
def test_texts_are_texts(tmp_path: Path, values: list[str]) -> None:
    assert propose_text(tmp_path, text_of(values * 50), label="label").notes == ()


def test_a_time_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"x holds varchar values, no times\. 1 of 100 values are no times"):
        propose_text(tmp_path, text_of([*DAYS[:99], "30.03.2024 24:00"]), label="label", time="x")


def test_decimal_commas_are_seen_beside_texts_of_nulls(tmp_path: Path) -> None:
    proposal = propose_text(tmp_path, text_of([*NUMBERS[:97], *["k.A."] * 3]), label="label")
    assert (types(proposal)["x"], proposal.notes) == ("double", ())
