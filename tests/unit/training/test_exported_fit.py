"""The fit that serves: the one of the gates, or one that has seen the hold-out too."""

from dataclasses import replace

import pytest
from evaluated_candidates import case

from mlops_assets.clients.bundle_record import Precision
from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.exported_fit import fit_and_export, least_precise, refit
from mlops_assets.training.fitting import default_estimator


def with_refit(inputs: SolutionInputs, stated: bool | None) -> SolutionInputs:
    training = inputs.solution.training.model_copy(update={"refit": stated})
    return replace(inputs, solution=inputs.solution.model_copy(update={"training": training}))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_serves_has_seen_the_hold_out_and_is_always_the_same(problem: Problem) -> None:
    chosen = case(problem)
    inputs = with_refit(chosen.inputs, None)
    gated = fit_and_export(inputs, chosen.train, chosen.holdout, default_estimator(inputs))
    served = refit(inputs, gated, chosen.holdout)
    assert gated.rows.num_rows == 1000
    assert served.rows.num_rows == 2000
    assert served.exported.content != gated.exported.content
    assert served.exported.content == refit(inputs, gated, chosen.holdout).exported.content
    assert served.fitted.estimator == gated.fitted.estimator
    assert served.precision.largest_difference < 1e-4


def test_without_refit_what_the_gates_evaluated_serves() -> None:
    chosen = case("regression")
    inputs = with_refit(chosen.inputs, False)
    gated = fit_and_export(inputs, chosen.train, chosen.holdout, default_estimator(inputs))
    assert refit(inputs, gated, chosen.holdout) is gated


@pytest.mark.parametrize(
    ("stated", "label_delay", "refits"),
    [(None, "1d", True), (None, "1w", True), (None, "8d", False), (True, "60d", True), (False, "1d", False)],
)
def test_by_default_it_is_fitted_again_where_labels_come_within_half_of_the_hold_out(
    stated: bool | None, label_delay: str, refits: bool
) -> None:
    attributes = case("regression").inputs.solution.model_dump(exclude_unset=True)
    attributes["training"] |= {"holdout": "14d", "refit": stated}
    attributes["monitoring"] = {"performance": {"label_delay": label_delay}}
    assert Solution.model_validate(attributes).refits is refits


def test_the_precision_of_a_version_is_that_of_its_less_precise_fit() -> None:
    first, second = Precision(10, 1e-7, 0.1, 0.0), Precision(10, 1e-8, 0.2, 1e-9)
    assert least_precise(first, second) == Precision(10, 1e-7, 0.2, 1e-9)
