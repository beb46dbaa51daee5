"""A change of the relation that is put into labelled rows: those of a value, on its days, of every problem."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.operations.changed_rows import RelationChange
from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.schema.solution import Solution

FIRST = date(2020, 3, 2)
LABELS = {"binary_classification": [True, False], "multiclass_classification": ["A", "B", "C"], "regression": [1, 5, 7]}


def solution(problem: Problem) -> Solution:
    kind = "Regressor" if problem == "regression" else "Classifier"
    return Solution.model_validate(
        {
            "name": "clinic",
            "description": "",
            "owners": ["team:clinic"],
            "problem": problem,
            "partitions": {"column": "day", "start": "2020-01-01", "end": "2020-05-01"},
            "spine": {"model": "visits", "key": "id", "prediction_time": "asked_at", "label": "label", "label_time": "known_at"},
            "features": [{"request": ["ward"]}],
            "training": {
                "window": "30d",
                "holdout": "10d",
                "metric": "mean_absolute_error" if problem == "regression" else "log_loss",
                "estimator": {"type": f"sklearn.ensemble.HistGradientBoosting{kind}"},
            },
        }
    )


def rows(problem: Problem) -> pa.Table:
    count = 6000
    return pa.table(
        {
            "day": [FIRST + timedelta(days=number // 100 - 10) for number in range(count)],
            "ward": np.where(np.arange(count) % 3 == 0, "north", "south"),
            "label": [LABELS[problem][number % len(LABELS[problem])] for number in range(count)],
        }
    )


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("kind", "least", "most"), [("abrupt", 1, 1), ("gradual", 0.4, 0.6), ("seasonal", 0.4, 0.6)])
def test_the_labels_of_the_value_on_the_days(problem: Problem, kind: str, least: float, most: float) -> None:
    table, made = rows(problem), solution(problem)
    changed = RelationChange.read(f"{kind}:ward=south:{FIRST}:2020-04-10").apply(made, table)
    assert changed.schema == table.schema
    differ = np.array(table.column("label").to_pylist()) != np.array(changed.column("label").to_pylist())
    days = table.column("day").to_numpy()
    chosen = (table.column("ward").to_numpy() == "south") & (days >= np.datetime64(FIRST)) & (days <= np.datetime64("2020-04-10"))
    assert not differ[~chosen].any()
    # A value at the median stays where it is.
    movable = chosen & (np.array(table.column("label").to_pylist()) != 5) if problem == "regression" else chosen
    assert least <= differ[movable].mean() <= most


def test_what_is_no_change_is_told() -> None:
    for text, expected in (
        ("often:ward=south:2020-03-02:2020-03-03", "There is no change 'often'"),
        ("abrupt:ward:2020-03-02:2020-03-03", "is no change of a relation"),
        ("abrupt:ward=south:2020-03-03:2020-03-02", "before it begins"),
    ):
        with pytest.raises(StackError, match=expected):
            RelationChange.read(text)
    made = solution("regression")
    for chosen, expected in (("height=1", "has no feature height"), ("ward=west", "ward is never west")):
        with pytest.raises(StackError, match=expected):
            RelationChange.read(f"abrupt:{chosen}:2020-03-02:2020-03-03").apply(made, rows("regression"))
