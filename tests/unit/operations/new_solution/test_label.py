"""The problem that a label poses, and the expression of a binary label that is text."""

from pathlib import Path
from typing import Any

import pytest
from new_tables import decided, open_fields, propose_rows, solution

from mlops_assets.core.errors import StackError


def rows(values: list[Any], n: int = 100) -> list[dict[str, Any]]:
    return [{"x": number % 17, "label": values[number % len(values)]} for number in range(n)]


@pytest.mark.parametrize(
    ("values", "problem", "label", "expression"),
    [
        ([True, False], "binary_classification", "label", None),
        ([0, 1], "binary_classification", "label", None),
        ([0.0, 1.0], "binary_classification", "label", None),
        (["yes", "no"], "binary_classification", "label", None),
        (["ja", "nein"], "binary_classification", "label_is_ja", "label = 'ja'"),
        (["pünktlich", "verspätet"], "binary_classification", "label_is_verspaetet", "label = 'verspätet'"),
        (["it's late", "ok", "ok"], "binary_classification", "label_is_it_s_late", "label = 'it''s late'"),
        ([1, 2], "binary_classification", "label_is_2", "label = 2"),
        (["rote Art", "вид", "kind three"], "multiclass_classification", "label", None),
        ([0, 1, 2], "multiclass_classification", "label", None),
        ([number * 1.5 for number in range(30)], "regression", "label", None),
        (list(range(50)), "regression", "label", None),
    ],
)
def test_a_label_has_its_problem(tmp_path: Path, values: list[Any], problem: str, label: str, expression: str | None) -> None:
    written = solution(propose_rows(tmp_path, rows(values), label="label"))
    assert written.problem == problem
    assert written.spine.label == label
    assert written.spine.expressions.get(label) == expression


@pytest.mark.parametrize(("values", "field"), [([0, 1, 2], "problem"), (["heads", "tails"], "positive")])
def test_what_a_label_leaves_open_is_asked(tmp_path: Path, values: list[Any], field: str) -> None:
    assert open_fields(propose_rows(tmp_path, rows(values), label="label")) == [field]


def test_answers_decide(tmp_path: Path) -> None:
    assert solution(propose_rows(tmp_path, rows([0, 1, 2]), label="label", problem="regression")).problem == "regression"
    chosen = propose_rows(tmp_path, rows(["heads", "tails"]), label="label", positive="heads")
    assert decided(chosen)["positive"] == "heads"
    assert solution(chosen).spine.expressions == {"label_is_heads": "label = 'heads'"}


@pytest.mark.parametrize(
    ("values", "answers", "message"),
    [
        ([1], {}, "the value 1 alone"),
        ([None], {}, "no value"),
        ([*[None] * 291, *range(9)], {}, "known in 9 rows, too few to train"),
        (["2024-01-01", "2024-01-02"], {}, "which nothing predicts"),
        ([f"text {number}" for number in range(150)], {}, "too many classes"),
        (["a", "b", "c"], {"problem": "binary"}, "3 different values"),
        (["a", "b", "c"], {"problem": "regression"}, "no numbers"),
        (["a", "b"], {"positive": "c"}, "no value 'c'"),
        (["a", "b"], {"label": "labl"}, "There is no column 'labl'"),
    ],
)
def test_a_label_that_cannot_be_predicted_is_refused(
    tmp_path: Path, values: list[Any], answers: dict[str, str], message: str
) -> None:
    with pytest.raises(StackError, match=message):
        propose_rows(tmp_path, rows(values, n=300), **{"label": "label", **answers})
