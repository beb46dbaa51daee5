"""Delimiter, quotation and header of a CSV file, by what the platform's reader makes of its first lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.staged_rows import STAGED, StagedRows, stage_rows
from mlops_assets.sources.csv_header import Dialect, read_record
from mlops_assets.sources.extract import SourceError

_DELIMITERS = {"\t": "tab", "|": "bar", ";": "semicolon", ",": "comma"}
"""Delimiters, the rarer in texts first: a semicolon in every line is one where a comma in every line may be a decimal mark."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_QUOTES = {'"': "double", "'": "single"}


@dataclass(frozen=True)
class _Signs:
    """A delimiter with a quotation, and what the reader makes of the lines: columns, lost lines, and whether quotes are left around values."""

    delimiter: str
    quotation: str
    escape: str
    columns: int = 0
    lost: float = 1.0
    has_quotes_left: bool = False

    @property
    def quality(self) -> tuple[float, bool]:
        """The less, the better."""
        return self.lost, self.has_quotes_left

    @property
    def options(self) -> dict[str, Any]:
        """The options of the reader that differ from its defaults."""
        options = {"delim": self.delimiter} if self.delimiter != "," else {}
        options |= {"quote": self.quotation} if self.quotation != '"' else {}
        return options | ({"escape": self.escape} if self.escape != self.quotation else {})


def infer_dialect(
    connection: duckdb.DuckDBPyConnection, lines: Path, answers: Answers, *, label: str
) -> tuple[dict[str, Any], tuple[Decision, ...]]:
    """The options of the CSV reader that differ from its defaults, and the decisions behind them, by the first `lines` of the file `label`."""
    text = lines.read_bytes().decode("utf-8", "surrogateescape")
    if not text.strip():
        raise StackError(f"{label} is empty.", remedy="A CSV file begins with its header.")
    for signs in (
        _Signs(delimiter, *quotation) for delimiter in _delimiters(answers) for quotation in _quotations(text, answers)
    ):
        # Refuses what is no sign before anything is read with it.
        Origin("csv", label).table({"column": {"type": "varchar"}}, options={"delim": signs.delimiter, **signs.options})
    sample = Origin("csv", str(lines), lines)
    place: dict[str, Any] = {}
    decisions: list[Decision] = []
    if answers.names:
        place |= {"header": False, "names": list(answers.names)}
    skipped, reason = (answers.skip, "Given.") if answers.skip is not None else _lines_before_header(text, answers)
    if skipped:
        place["skip"] = skipped
        decisions.append(Decision(field="skip", value=str(skipped), reason=reason))
    try:
        chosen, found = _choose(_candidates(connection, sample, text, place, answers), answers)
        if not answers.names:
            _require_header(list(_rows(connection, sample, chosen, place).columns))
    except SourceError as error:
        raise SourceError(str(error).replace(str(lines), label)) from error
    return {**chosen.options, **place}, (*decisions, *found)


def _lines_before_header(text: str, answers: Answers) -> tuple[int, str]:
    """How many lines are before the one with the name of the label, and why; none where the first line has as many names."""
    if answers.names:
        return 0, ""
    widest: dict[Dialect, int] = {}
    for number, line in enumerate(_LINE.finditer(text)):
        for dialect in _dialects(answers):
            names = [name.strip() for name in read_record(text, line.start(), dialect) or ()]
            named = sum(map(bool, names))
            # A title above a table may have the delimiters of a row, and nothing between them.
            width = len(names) if 2 * named > len(names) else named
            if answers.label in names and (number == 0 or width > widest[dialect]):
                # The reader passes over empty lines by itself.
                return (
                    number if text[: line.start()].strip() else 0
                ), f"The names of the columns are in line {number + 1}; what is before it is no row."
            widest[dialect] = max(widest.get(dialect, 1), width)
    return 0, ""


def _dialects(answers: Answers) -> Iterator[Dialect]:
    for delimiter, quotation in product(_delimiters(answers), _QUOTES):
        yield Dialect(delimiter=delimiter, quotation=quotation, escape=quotation, comment="")


def _delimiters(answers: Answers) -> list[str]:
    if answers.delimiter is None:
        return list(_DELIMITERS)
    return [{name: sign for sign, name in _DELIMITERS.items()}.get(answers.delimiter, answers.delimiter).replace("\\t", "\t")]


def _candidates(
    connection: duckdb.DuckDBPyConnection, sample: Origin, text: str, place: dict[str, Any], answers: Answers
) -> list[_Signs]:
    """Each delimiter with its best quotation."""
    return [
        min(
            (_judged(connection, sample, _Signs(delimiter, *quotation), place) for quotation in _quotations(text, answers)),
            key=lambda signs: signs.quality,
        )
        for delimiter in _delimiters(answers)
    ]


def _quotations(text: str, answers: Answers) -> list[tuple[str, str]]:
    """The signs around values and before a quote within them that may be those of the `text`."""
    if answers.quote is not None or answers.escape is not None:
        quotation = {name: sign for sign, name in _QUOTES.items()}.get(answers.quote or "", answers.quote or '"')
        return [(quotation, {"backslash": "\\"}.get(answers.escape or "", answers.escape or quotation))]
    # Others than the usual one only where they can be: each is one more reading.
    single = [("'", "'")] if "'" in text else []
    return [('"', '"'), *single, *([('"', "\\")] if '\\"' in text else [])]


def _rows(connection: duckdb.DuckDBPyConnection, sample: Origin, signs: _Signs, place: dict[str, Any]) -> StagedRows:
    return stage_rows(connection, sample, {**signs.options, **place}, null_strings=())


def _judged(connection: duckdb.DuckDBPyConnection, sample: Origin, signs: _Signs, place: dict[str, Any]) -> _Signs:
    """`signs` with what the reader makes of the lines."""
    try:
        rows = _rows(connection, sample, signs, place)
    except (SourceError, StackError):
        return signs
    lines = rows.count + rows.unreadable
    return _Signs(
        signs.delimiter,
        signs.quotation,
        signs.escape,
        columns=len(rows.columns) + len(rows.repeated) + rows.unnamed,
        lost=rows.unreadable / lines if lines else 1.0,
        has_quotes_left=_has_quotes_left(connection, rows),
    )


def _has_quotes_left(connection: duckdb.DuckDBPyConnection, rows: StagedRows) -> bool:
    """Whether each value of a column stands in quotes."""
    tests = [
        f"coalesce(bool_and(length({value}) > 1 AND left({value}, 1) = right({value}, 1) AND left({value}, 1) IN ('''', '\"')), false)"
        for value in map(rows.sql, rows.columns)
    ]
    if not tests:
        return False
    [row] = connection.execute(f"SELECT {', '.join(tests)} FROM {STAGED}").fetchall()
    return any(row)


def _choose(candidates: list[_Signs], answers: Answers) -> tuple[_Signs, list[Decision]]:
    whole = [signs for signs in candidates if signs.lost == 0.0 and signs.columns > 1]
    best = whole[0] if whole else min(candidates, key=lambda signs: (signs.columns < 2, signs.lost))
    decisions = []
    if answers.delimiter is not None:
        decisions.append(Decision(field="delimiter", value=best.delimiter, reason="Given."))
    elif best.columns < 2:
        best = next(signs for signs in candidates if signs.delimiter == ",")
        decisions.append(Decision(field="delimiter", value=",", reason="There is one column."))
    else:
        share = "every line" if best.lost == 0.0 else f"{1 - best.lost:.1%} of the lines"
        reason = f"A {_DELIMITERS[best.delimiter]} parts {share} into {best.columns} columns."
        question, choices = "", tuple[str, ...]()
        if len(whole) > 1:
            others = ", ".join(f"a {_DELIMITERS[signs.delimiter]} into {signs.columns}" for signs in whole[1:])
            reason, question = f"{reason} So does {others}.", "What parts the columns?"
            choices = tuple(_DELIMITERS[signs.delimiter] for signs in whole)
        decisions.append(Decision(field="delimiter", value=best.delimiter, reason=reason, question=question, choices=choices))
    if best.quotation != '"':
        reason = "Given." if answers.quote else f"Values stand in {_QUOTES.get(best.quotation, best.quotation)} quotes."
        decisions.append(Decision(field="quote", value=best.quotation, reason=reason))
    if best.escape != best.quotation:
        reason = "Given." if answers.escape else "Within quotes it stands before a quote that is part of the value."
        decisions.append(Decision(field="escape", value=best.escape, reason=reason))
    return best, decisions


def _require_header(names: list[str]) -> None:
    """Raise StackError where the first line is a row of values: a name is no number."""
    numbers = [name for name in names if _is_number(name)]
    if len(numbers) * 2 > len(names):
        listed = ",".join(f"column_{number}" for number in range(1, len(names) + 1))
        raise StackError(
            f"The first line of the file has no names of columns: {len(numbers)} of {len(names)} are numbers.",
            remedy=f"Name the columns in their order: --names {listed}",
        )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
