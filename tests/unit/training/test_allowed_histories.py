"""Histories that a solution allows: the one that loses least on the hold-out is fitted, and serves after its refit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from evaluated_candidates import Case, case
from pydantic import ValidationError

from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.training_rules import check_training
from mlops_assets.schema.training_section import TrainingHistory
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import allowed_histories, history_weights, rows_of_history
from mlops_assets.training.exported_fit import ExportedFit, fit_histories, refit
from mlops_assets.training.fitting import default_estimator

HISTORIES = [{}, {"span": "10d"}, {"half_life": "4d"}]


def with_histories(inputs: SolutionInputs) -> SolutionInputs:
    attributes = inputs.solution.model_dump(exclude_unset=True)
    attributes["training"] |= {"histories": HISTORIES}
    return replace(inputs, solution=Solution.model_validate(attributes))


def hourly(rows: pa.Table, first: int, *, changed_before: int = 0) -> pa.Table:
    """The rows, one an hour from the hour `first` on; of those before the hour `changed_before` the distance means the opposite."""
    times = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=first + number) for number in range(rows.num_rows)]
    rows = rows.set_column(rows.column_names.index("predicted_at"), "predicted_at", pa.array(times))
    old = np.arange(first, first + rows.num_rows) < changed_before
    distance = rows.column("distance").to_numpy()
    return rows.set_column(rows.column_names.index("distance"), "distance", pa.array(np.where(old, 2600 - distance, distance)))


def fit(chosen: Case, *, changed_before: int) -> tuple[ExportedFit, ExportedFit, dict[str, float]]:
    """The fit that the gates see, the one that serves, and the losses by history; the hold-out begins after 1000 hours."""
    inputs = with_histories(chosen.inputs)
    train, holdout = hourly(chosen.train, 0, changed_before=changed_before), hourly(chosen.holdout, 1000)
    gated, losses = fit_histories(inputs, train, holdout, default_estimator(inputs))
    return gated, refit(inputs, gated, holdout), dict(losses)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_after_a_change_a_history_without_the_old_rows_is_fitted_and_serves(problem: Problem) -> None:
    gated, served, losses = fit(case(problem), changed_before=700)
    assert gated.history.name == served.history.name == min(losses, key=lambda name: losses[name]) != "all"
    assert losses["all"] > 1.1 * losses["last 10 days"]
    assert list(losses) == ["all", "last 10 days", "half-life of 4 days"]


def test_where_nothing_changed_every_row_is_taken() -> None:
    gated, served, _ = fit(case("regression"), changed_before=0)
    assert (gated.history.name, gated.rows.num_rows, served.rows.num_rows) == ("all", 1000, 2000)


def test_rows_are_taken_and_weighed_up_to_the_newest_one() -> None:
    chosen = case("regression")
    inputs = with_histories(chosen.inputs)
    _, span, half_life = allowed_histories(inputs.solution)
    rows = hourly(chosen.train, 0)
    taken = rows_of_history(inputs, rows, span)
    assert taken.num_rows == 240
    assert pc.max(taken.column("predicted_at")) == pc.max(rows.column("predicted_at"))
    weights = history_weights(inputs, rows, half_life)
    assert weights is not None
    assert weights[-1] == 1
    assert weights[-1 - 96] == pytest.approx(0.5)


def test_without_histories_the_whole_window_is_fitted_alone() -> None:
    chosen = case("regression")
    gated, losses = fit_histories(chosen.inputs, chosen.train, chosen.holdout, default_estimator(chosen.inputs))
    assert (gated.history.name, losses) == ("all", {})


def test_a_history_has_a_span_or_a_half_life() -> None:
    with pytest.raises(ValidationError, match="give either `span` or `half_life`"):
        TrainingHistory(span="60d", half_life="30d")


def test_weights_need_an_estimator_that_takes_them() -> None:
    solution = with_histories(case("regression").inputs).solution
    neighbours = solution.training.estimator.model_copy(
        update={"type": "sklearn.neighbors.KNeighborsRegressor", "parameters": {}}
    )
    training = solution.training.model_copy(update={"estimator": neighbours})
    with pytest.raises(ConfigurationError, match="sample_weight"):
        check_training(solution.model_copy(update={"training": training}))
