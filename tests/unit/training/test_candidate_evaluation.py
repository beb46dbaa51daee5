"""A candidate evaluated through its real bundle, for the three problems."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from evaluated_candidates import FEATURES, Candidate, bundle_of, case, evaluated

from mlops_assets.training.candidate_evaluation import ComparedChampion, comparison_problem


def test_a_candidate_is_evaluated_beside_a_constant_and_the_champion(candidate: Candidate) -> None:
    metric = candidate.case.inputs.solution.training.metric
    candidate_result, importances = candidate.evaluated.candidate_result, candidate.evaluated.importances
    # A champion that is the same model: no metric differs.
    assert {each.value for each in candidate_result.against_champion.values()} == {0}
    assert candidate_result.against_baseline.is_better
    assert set(candidate_result.result.intervals) == set(candidate_result.result.metrics)
    assert [each.value for each in candidate_result.result.slices] == ["AA", "B6"]
    assert all(each.intervals[metric] is not None for each in candidate_result.result.slices)
    assert candidate_result.result.dropped_slices == {"carrier": 1}
    assert 0 < candidate_result.latency.p50 <= candidate_result.latency.p99
    assert importances is not None
    assert {each.feature for each in importances.features} == set(FEATURES)
    assert importances.features[0].feature == "distance"


def test_the_fit_that_serves_is_held_against_the_one_that_was_evaluated(tmp_path: Path) -> None:
    chosen = case("regression")
    gated = bundle_of(chosen, tmp_path / "4", 4)
    served = bundle_of(replace(chosen, train=pa.concat_tables([chosen.train, chosen.holdout])), tmp_path / "5", 5)
    alone = ComparedChampion(model=None, bundle=None, reason="there is no champion to compare with")
    found = evaluated(chosen, gated, alone, served=served).candidate_result
    assert found.result.metrics == evaluated(chosen, gated, alone).candidate_result.result.metrics
    assert found.refit is not None
    assert found.refit.theirs == found.result.metrics["mean_absolute_error"]
    assert found.refit.loss is not None
    assert found.refit.loss < 0.02 * found.refit.theirs


def test_evaluating_twice_gives_the_same(tmp_path: Path) -> None:
    chosen = case("regression")
    bundle = bundle_of(chosen, tmp_path / "4", 4)
    alone = ComparedChampion(model=None, bundle=None, reason="there is no champion to compare with")
    first, second = evaluated(chosen, bundle, alone), evaluated(chosen, bundle, alone)
    assert first.candidate_result.result.as_dict() == second.candidate_result.result.as_dict()
    assert first.importances == second.importances


def test_a_champion_of_other_features_or_classes_is_not_compared(tmp_path: Path) -> None:
    chosen = case("multiclass_classification")
    contract = bundle_of(chosen, tmp_path / "3", 3).contract
    assert comparison_problem(contract, contract, chosen.holdout) is None
    reason = comparison_problem(contract, contract, chosen.holdout.drop_columns(["distance"]))
    assert reason == "version 3, the champion, reads features that the dataset lacks: distance"
    fewer = contract.model_copy(update={"classes": contract.classes[:2]})
    assert comparison_problem(contract, fewer, chosen.holdout) == "version 3, the champion, knows other classes"
