"""The rows that a training fits: those from before the window too, unless its average loses more with them."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from evaluated_candidates import case

from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.schema.training_section import Step, TrainingHistory
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.helpful_rows import helpful_rows

TRAINING_DATE = date(2013, 3, 1)


def over(rows: pa.Table, first: date, days: int) -> pa.Table:
    """The rows, evenly over `days` days from `first` on; a label is known an hour later."""
    moments = [
        datetime(first.year, first.month, first.day, 6, tzinfo=UTC) + timedelta(days=days * number / rows.num_rows)
        for number in range(rows.num_rows)
    ]
    for name, values in (("predicted_at", moments), ("arrived_at", [moment + timedelta(hours=1) for moment in moments])):
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
        else:
            rows = rows.append_column(name, pa.array(values))
    return rows


def parts(problem: Problem) -> tuple[SolutionInputs, pa.Table, pa.Table, pa.Table]:
    """Inputs with earlier rows, rows from before the window, those of the window, and its hold-out."""
    chosen = case(problem)
    solution = chosen.inputs.solution
    training = solution.training.model_copy(update={"window": "59d", "holdout": "14d", "earlier_rows": 5000})
    inputs = replace(chosen.inputs, solution=solution.model_copy(update={"training": training}))
    rows = pa.concat_tables([chosen.train, chosen.holdout])
    earlier = over(rows.slice(0, 1000), date(2012, 10, 1), 90)
    return inputs, earlier, over(rows.slice(1000, 500), date(2013, 1, 2), 44), over(rows.slice(1500), date(2013, 2, 16), 12)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_rows_of_the_same_relation_are_fitted_on(problem: Problem) -> None:
    inputs, earlier, train, holdout = parts(problem)
    helpful = helpful_rows(inputs, earlier, train, holdout, TRAINING_DATE)
    assert helpful.rows.equals(pa.concat_tables([earlier, train]))
    assert helpful.earlier.startswith("1,000 are fitted on: with them the loss on the ")


def test_rows_of_another_relation_are_not() -> None:
    inputs, earlier, train, holdout = parts("regression")
    label = inputs.solution.spine.label
    # Another unit, as it was before somebody changed it.
    turned = earlier.set_column(earlier.column_names.index(label), label, pa.array(earlier.column(label).to_numpy() * 60 + 1000))
    helpful = helpful_rows(inputs, turned, train, holdout, TRAINING_DATE)
    assert helpful.rows.equals(train)
    assert helpful.earlier.startswith("none of 1,000 is fitted on: with them the loss on the ")


@pytest.mark.parametrize(
    "estimator", ["sklearn.linear_model.LogisticRegression", "sklearn.ensemble.HistGradientBoostingClassifier"]
)
def test_a_short_history_of_one_class_is_no_reason_to_fail(estimator: str) -> None:
    inputs, earlier, train, holdout = parts("binary_classification")
    label = inputs.solution.spine.label
    values = train.column(label).to_pylist()
    values[-60:] = [values[0]] * 60
    train = train.set_column(train.column_names.index(label), label, pa.array(values, train.schema.field(label).type))
    update = {"histories": [TrainingHistory(), TrainingHistory(span="3d")], "estimator": Step(type=estimator)}
    training = inputs.solution.training.model_copy(update=update)
    inputs = replace(inputs, solution=inputs.solution.model_copy(update={"training": training}))
    helpful = helpful_rows(inputs, earlier, train, holdout, TRAINING_DATE)
    assert helpful.rows.equals(pa.concat_tables([earlier, train]))
    assert helpful.earlier.startswith("1,000")


def test_nothing_is_compared_where_there_is_nothing() -> None:
    inputs, earlier, train, holdout = parts("regression")
    assert helpful_rows(inputs, earlier.slice(0, 0), train, holdout, TRAINING_DATE).rows.equals(train)
    assert helpful_rows(inputs, earlier, train, holdout.slice(0, 0), TRAINING_DATE).rows.num_rows == 1500
    assert np.all(holdout.column("predicted_at").to_numpy() < np.datetime64("2013-03-01"))
