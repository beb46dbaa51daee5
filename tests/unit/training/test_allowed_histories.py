"""Histories of a solution: the average of a fit on each is gated, exported and refitted."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from evaluated_candidates import case
from pydantic import ValidationError

from mlops_assets.ml.history import History
from mlops_assets.ml.matrix import to_frame
from mlops_assets.ml.pipeline import predict
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.duration import maximum_days
from mlops_assets.schema.problem import PROBLEMS, Problem, label_array
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.training_rules import check_training
from mlops_assets.schema.training_section import TrainingHistory
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import WHOLE_DATASET, allowed_histories, earlier_rows, history_weights
from mlops_assets.training.exported_fit import fit_and_export
from mlops_assets.training.fitting import default_estimator

HISTORIES: list[dict[str, str]] = [{}, {"span": "10d"}, {"half_life": "4d"}]


def with_histories(inputs: SolutionInputs, histories: Sequence[dict[str, str]] = HISTORIES) -> SolutionInputs:
    attributes = inputs.solution.model_dump(exclude_unset=True)
    attributes["training"] |= {"histories": list(histories)}
    return replace(inputs, solution=Solution.model_validate(attributes))


def hourly(rows: pa.Table, first: int, *, changed_before: int = 0) -> pa.Table:
    """The rows, one an hour from the hour `first` on; of those before the hour `changed_before` the distance means the opposite."""
    times = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=first + number) for number in range(rows.num_rows)]
    rows = rows.set_column(rows.column_names.index("predicted_at"), "predicted_at", pa.array(times))
    old = np.arange(first, first + rows.num_rows) < changed_before
    distance = rows.column("distance").to_numpy()
    return rows.set_column(rows.column_names.index("distance"), "distance", pa.array(np.where(old, 2600 - distance, distance)))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_serves_is_the_average_of_a_fit_on_each_history(problem: Problem) -> None:
    chosen = case(problem)
    inputs = with_histories(chosen.inputs)
    train, holdout = hourly(chosen.train, 0, changed_before=700), hourly(chosen.holdout, 1000)
    gated = fit_and_export(inputs, train, holdout, default_estimator(inputs))
    average = gated.fitted.pipeline.named_steps["estimator"]
    assert len(average.estimators_) == 3
    frame = to_frame(holdout, gated.schema)
    features = gated.fitted.pipeline.named_steps["features"].transform(frame)
    parts = [part.predict(features) if problem == "regression" else part.predict_proba(features) for part in average.estimators_]
    assert predict(gated.fitted.pipeline, frame, problem) == pytest.approx(np.mean(parts, axis=0))
    # It serves as ONNX, and equals the pipeline.
    assert gated.exported.no_onnx is None
    assert gated.precision.largest_difference < 1e-5


def test_after_a_change_the_average_loses_less_than_the_whole_window() -> None:
    chosen = case("regression")
    train, holdout = hourly(chosen.train, 0, changed_before=700), hourly(chosen.holdout, 1000)
    errors = []
    for histories in ([], HISTORIES):
        inputs = with_histories(chosen.inputs, histories)
        fit = fit_and_export(inputs, train, holdout, default_estimator(inputs))
        labels = label_array(holdout.column(inputs.solution.spine.label), "regression")
        errors.append(np.abs(predict(fit.fitted.pipeline, to_frame(holdout, fit.schema), "regression") - labels).mean())
    assert errors[1] < 0.97 * errors[0]


def test_rows_are_taken_and_weighed_up_to_the_newest_one() -> None:
    chosen = case("regression")
    inputs = with_histories(chosen.inputs)
    whole, span, half_life = allowed_histories(inputs.solution)
    rows = hourly(chosen.train, 0)
    assert (history_weights(inputs, rows, whole) == 1).all()
    taken = history_weights(inputs, rows, span)
    assert (taken[-240:] == 1).all()
    assert taken.sum() == 240
    weights = history_weights(inputs, rows, half_life)
    assert weights[-1] == 1
    assert weights[-1 - 96] == pytest.approx(0.5)


def test_without_a_section_recent_rows_count_twice_where_weights_are_taken() -> None:
    solution = case("regression").inputs.solution
    window = maximum_days(solution.training.window)
    assert allowed_histories(solution) == (WHOLE_DATASET, History(half_life=window // 3))
    assert earlier_rows(solution) == 100_000
    neighbours = solution.training.estimator.model_copy(
        update={"type": "sklearn.neighbors.KNeighborsRegressor", "parameters": {}}
    )
    for update in ({"estimator": neighbours}, {"histories": []}):
        training = solution.training.model_copy(update=update)
        alone = solution.model_copy(update={"training": training})
        assert allowed_histories(alone) == (WHOLE_DATASET,)
        # Nothing would lean to what is recent.
        assert earlier_rows(alone) == 0
        stated = training.model_copy(update={"earlier_rows": 500})
        assert earlier_rows(alone.model_copy(update={"training": stated})) == 500


def test_a_history_has_a_span_or_a_half_life() -> None:
    with pytest.raises(ValidationError, match="give either `span` or `half_life`"):
        TrainingHistory(span="60d", half_life="30d")


def test_weights_need_an_estimator_that_takes_them() -> None:
    solution = with_histories(case("regression").inputs).solution
    neighbours = solution.training.estimator.model_copy(
        update={"type": "sklearn.neighbors.KNeighborsRegressor", "parameters": {}}
    )
    training = solution.training.model_copy(update={"estimator": neighbours})
    with pytest.raises(ConfigurationError, match="leave out the half_life of histories"):
        check_training(solution.model_copy(update={"training": training}))


def test_earlier_rows_are_of_the_whole_dataset_alone() -> None:
    chosen = case("regression")
    inputs = with_histories(chosen.inputs, [{}, {"half_life": "400d"}, {"span": "400d"}])
    rows = hourly(chosen.train, 0)
    rows = rows.append_column("split", pa.array(["earlier"] * 100 + ["train"] * (rows.num_rows - 100)))
    whole, *others = allowed_histories(inputs.solution)
    assert (history_weights(inputs, rows, whole) == 1).all()
    for history in others:
        weights = history_weights(inputs, rows, history)
        assert not weights[:100].any()
        assert (weights[100:] > 0.9).all()


def test_earlier_rows_that_no_history_reads_are_a_fault() -> None:
    solution = with_histories(case("regression").inputs, [{"span": "10d"}]).solution
    check_training(solution)
    training = solution.training.model_copy(update={"earlier_rows": 500})
    with pytest.raises(ConfigurationError, match="reads rows from before the window"):
        check_training(solution.model_copy(update={"training": training}))
