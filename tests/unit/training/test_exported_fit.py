"""The fit that serves: the one of the gates, or one that has seen the hold-out too."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
from evaluated_candidates import Case, case

from mlops_assets.clients.bundle_record import Precision
from mlops_assets.engine.engine import ProcessEngine
from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.exported_fit import ExportedFit, fit_version, least_precise
from mlops_assets.training.fitting import default_estimator


def with_refit(inputs: SolutionInputs, stated: bool | None) -> SolutionInputs:
    training = inputs.solution.training.model_copy(update={"refit": stated})
    return replace(inputs, solution=inputs.solution.model_copy(update={"training": training}))


def fits(inputs: SolutionInputs, chosen: Case) -> tuple[ExportedFit, ExportedFit]:
    return fit_version(inputs, chosen.train, chosen.holdout, default_estimator(inputs), engine=ProcessEngine())


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_serves_has_seen_the_hold_out_and_is_always_the_same(problem: Problem) -> None:
    chosen = case(problem)
    inputs = with_refit(chosen.inputs, None)
    gated, served = fits(inputs, chosen)
    assert gated.rows.num_rows == 1000
    assert served.rows.num_rows == 2000
    assert served.exported.content != gated.exported.content
    assert served.exported.content == fits(inputs, chosen)[1].exported.content
    assert served.fitted.estimator == gated.fitted.estimator
    assert served.precision.largest_difference < 1e-4


def test_without_refit_what_the_gates_evaluated_serves() -> None:
    chosen = case("regression")
    inputs = with_refit(chosen.inputs, False)
    gated, served = fits(inputs, chosen)
    assert served is gated


class CountingEngine(ProcessEngine):
    """This process, which counts the parts that it is given."""

    parts = 0

    def map(self, function: Callable, parts: Iterable, *, in_flight: int) -> Iterator:  # type: ignore[type-arg]
        for part in parts:
            self.parts += 1
            yield function(part)


@pytest.mark.parametrize(("segment", "refits", "parts"), [(None, False, 0), ("north", False, 1), (None, True, 2)])
def test_a_single_fit_is_a_part_for_the_engine_in_a_segment_alone(segment: str | None, refits: bool, parts: int) -> None:
    chosen, engine = case("regression"), CountingEngine()
    inputs = replace(with_refit(chosen.inputs, refits), by_segment=segment is not None, segment=segment)
    gated, served = fit_version(inputs, chosen.train, chosen.holdout, default_estimator(inputs), engine=engine)
    assert (engine.parts, served is gated) == (parts, not refits)
    assert gated.rows == chosen.train


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
