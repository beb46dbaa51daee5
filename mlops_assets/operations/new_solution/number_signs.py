"""The decimal mark and the separator of thousands of a file: those with which most columns are numbers."""

from collections.abc import Collection
from typing import Any

from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.fitting import StagedColumns
from mlops_assets.sources.column_types import TextFormats

_SIGNS = ((".", None), (",", None), (",", "."), (".", ","))
_WORDS = {".": "point", ",": "comma", " ": "space", "'": "apostrophe"}


def infer_number_signs(
    columns: StagedColumns, names: Collection[str], answers: Answers, nulls: Collection[str], *, prefers_comma: bool
) -> tuple[dict[str, Any], list[Decision]]:
    """The options of the reader for the signs of numbers that differ from a point alone, and the decision behind them."""
    if answers.decimal is not None or answers.thousands is not None:
        sign = {word: sign for sign, word in _WORDS.items()}
        decimal = sign.get(answers.decimal or "", answers.decimal or ("," if answers.thousands in (".", "point") else "."))
        thousands = sign.get(answers.thousands or "", answers.thousands)
        return _options(decimal, thousands), [Decision(field="decimal", value=decimal, reason="Given.")]
    with_comma = columns.counts(names, "regexp_matches({value}, '[0-9],[0-9]')", nulls=nulls)
    asked = [name for name in names if with_comma[name]]
    if not asked:
        return {}, []
    others = [name for name in names if not with_comma[name]]
    numbers = {
        signs: columns.fitting([*asked, *_with_point(columns, others, nulls)], "double", _formats(*signs), nulls=nulls)
        for signs in _SIGNS
    }
    most = max(len(fitting) for fitting in numbers.values())
    best = [signs for signs in _SIGNS if len(numbers[signs]) == most]
    if best[0] == (".", None):
        return {}, []
    # A comma before every third digit is either of the two.
    is_open = (",", None) in best and (".", ",") in best
    chosen = (".", ",") if is_open and not prefers_comma else best[0]
    decimal, thousands = chosen
    reason = f"So {', '.join(list(numbers[chosen])[:3])} are numbers."
    question = "Is the comma in 1,234 a decimal mark?" if is_open else ""
    choices = ("comma", "point") if is_open else ()
    decision = Decision(field="decimal", value=decimal, reason=reason, question=question, choices=choices)
    return _options(decimal, thousands), [decision]


def _with_point(columns: StagedColumns, names: Collection[str], nulls: Collection[str]) -> list[str]:
    counts = columns.counts(names, "contains({value}, '.')", nulls=nulls)
    return [name for name, count in counts.items() if count]


def _formats(decimal: str, thousands: str | None) -> TextFormats:
    return TextFormats(decimal=decimal, thousands=thousands)


def _options(decimal: str, thousands: str | None) -> dict[str, Any]:
    options = {"decimal_separator": decimal} if decimal != "." else {}
    return options | ({"thousands": thousands} if thousands else {})
