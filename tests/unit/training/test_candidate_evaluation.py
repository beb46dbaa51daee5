"""A candidate judged through its real bundle, and its card, for the three problems."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bundles import fit_bundle, load

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.model_card import render_html, render_markdown
from mlops_assets.ml.pipeline import Step
from mlops_assets.schema.problem import PROBLEMS, Problem, label_array
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.bundle import Bundle
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training import dataset_checks as dataset
from mlops_assets.training.candidate_evaluation import (
    MINIMUM_SLICE_ROWS,
    CandidateEvaluation,
    Rival,
    comparable,
    evaluate_candidate,
)
from mlops_assets.training.gate import check_evaluation
from mlops_assets.training.model_card import CardSources, build_card
from mlops_assets.training.recorded_checks import DatasetState

FEATURES = ("distance", "day_of_week", "is_weekend", "carrier")
SCHEMA = FeatureSchema(numeric=FEATURES[:3], categorical=FEATURES[3:])
LABELS = {
    "binary_classification": "is_late",
    "multiclass_classification": "origin",
    "regression": "scheduled_duration_minutes",
}
METRICS = {"binary_classification": "roc_auc", "multiclass_classification": "log_loss", "regression": "mean_absolute_error"}
ESTIMATORS = {
    "binary_classification": "sklearn.linear_model.LogisticRegression",
    "multiclass_classification": "sklearn.linear_model.LogisticRegression",
    "regression": "sklearn.linear_model.LinearRegression",
}


@dataclass(frozen=True)
class Case:
    """One problem: its solution, and rows of which the first half trains."""

    inputs: SolutionInputs
    train: pa.Table
    holdout: pa.Table


def rows_of(problem: Problem, rows: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    distance, day_of_week = random.integers(100, 2500, rows), random.integers(1, 8, rows)
    carrier = random.choice(["AA", "B6", "UA|<b>"], rows, p=[0.5, 0.45, 0.05])
    signal = distance / 1000 + (carrier == "B6") + random.normal(0, 0.5, rows)
    labels = {
        "binary_classification": pa.array((signal > 2).astype(int)),
        "multiclass_classification": pa.array(np.array(["EWR", "JFK", "LGA"])[np.digitize(signal, [1, 2])]),
        "regression": pa.array((signal * 100).astype(int)),
    }
    start = datetime(2013, 1, 1, tzinfo=UTC)
    return pa.table(
        {
            "flight_id": [f"flight {number}" for number in range(rows)],
            "predicted_at": [start + timedelta(minutes=number) for number in range(rows)],
            "distance": distance,
            "day_of_week": day_of_week,
            "is_weekend": day_of_week > 5,
            "carrier": carrier,
            LABELS[problem]: labels[problem],
        }
    )


@cache
def case(problem: Problem) -> Case:
    attributes = {
        "name": "example",
        "description": "An example.",
        "owners": ["team:a"],
        "problem": problem,
        "partitions": {"column": "flight_date", "start": "2013-01-01"},
        "spine": {
            "model": "flight_delay_spine",
            "key": "flight_id",
            "prediction_time": "predicted_at",
            "label": LABELS[problem],
            "label_time": "arrived_at",
        },
        "features": [{"request": ["distance", "day_of_week", "carrier"]}, {"derived": {"is_weekend": "day_of_week > 5"}}],
        "limitations": ["Not for <planes>."],
        "training": {"window": "60d", "holdout": "14d", "metric": METRICS[problem], "estimator": {"type": ESTIMATORS[problem]}},
        "gates": {"slices": ["carrier"], "against_champion": {METRICS[problem]: 0.001}},
    }
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    table = rows_of(problem, 2000, 1)
    return Case(resolve_inputs(Solution.model_validate(attributes), registry), table.slice(0, 1000), table.slice(1000))


def bundle_of(case: Case, path: Path, version: int) -> Bundle:
    solution = case.inputs.solution
    labels = label_array(case.train.column(solution.spine.label), solution.problem)
    fitted = fit_bundle(
        case.train,
        labels,
        schema=SCHEMA,
        problem=solution.problem,
        estimator=Step(solution.training.estimator.type, solution.training.estimator.parameters),
        requests=[{"flight_id": "f1"}],
        version=version,
    )
    fitted.write(path)
    return load(path)


def judged(case: Case, bundle: Bundle, rival: Rival) -> CandidateEvaluation:
    solution = case.inputs.solution
    return evaluate_candidate(
        solution,
        bundle,
        rival=rival,
        holdout=case.holdout,
        training_labels=label_array(case.train.column(solution.spine.label), solution.problem),
        dataset=DatasetState("run", tuple(rule.name for rule in dataset.RULES), (), (), unchanged=True),
    )


@dataclass(frozen=True)
class Candidate:
    """A judged candidate, beside itself as the champion."""

    case: Case
    bundle: Bundle
    judged: CandidateEvaluation


@pytest.fixture(scope="module", params=PROBLEMS)
def candidate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    chosen = case(request.param)
    bundle = bundle_of(chosen, tmp_path_factory.mktemp("bundles") / "2", 2)
    champion = RegisteredModel("example", 7, "run", {})
    return Candidate(chosen, bundle, judged(chosen, bundle, Rival(model=champion, bundle=bundle, reason="")))


def test_a_candidate_is_judged_beside_a_constant_and_the_champion(candidate: Candidate) -> None:
    metric = candidate.case.inputs.solution.training.metric
    candidate_result, importances = candidate.judged.candidate_result, candidate.judged.importances
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


def test_judging_twice_gives_the_same(tmp_path: Path) -> None:
    chosen = case("regression")
    bundle = bundle_of(chosen, tmp_path / "4", 4)
    alone = Rival(model=None, bundle=None, reason="there is no champion to compare with")
    first, second = judged(chosen, bundle, alone), judged(chosen, bundle, alone)
    assert first.candidate_result.result.as_dict() == second.candidate_result.result.as_dict()
    assert first.importances == second.importances


def test_its_card_says_what_it_was_made_of_and_what_the_gates_said(candidate: Candidate) -> None:
    inputs, found = candidate.case.inputs, candidate.judged
    estimator = inputs.solution.training.estimator.type
    sources = CardSources(
        inputs=inputs,
        candidate=RegisteredModel("example", 2, "run", {"training_date": "2013-02-01"}),
        contract=candidate.bundle.contract,
        judged=found,
        checks=check_evaluation(inputs, found.candidate_result),
        parameters={"estimator": estimator, "seed": "0"},
        dataset=None,
        training_rows=candidate.case.train.num_rows,
        holdout=candidate.case.holdout,
    )
    card = build_card(sources, links={}, figures={})
    assert card.accepted
    assert [section.title for section in card.sections] == [
        "Purpose",
        "Data",
        "Training",
        "Metrics",
        "Slices",
        "Features",
        "Limits",
        "Gates",
        "Deploy and roll back",
    ]
    text, page = render_markdown(card), render_html(card)
    for expected in (
        "# example version 2",
        estimator.rpartition(".")[2],
        "predictions from 2013-01-01 16:40 to 2013-01-02 09:19 UTC",
        "| distance | with the request | 10",
        "| is\\_weekend | derived: day\\_of\\_week \\> 5 | 0 to 1 |",
        "AA, B6, UA\\|\\<b\\>",
        "- Not for \\<planes\\>.",
        f"fewer than {MINIMUM_SLICE_ROWS} rows in the hold-out were not judged as slices: 1 of carrier.",
        "| baseline | passed |",
        "champion (version 7)",
        'mlops promote example --to 2 --reason "..."',
    ):
        assert expected in text, expected
    assert "UA|&lt;b&gt;" in page
    assert "Not for &lt;planes&gt;." in page
    slow = replace(found.candidate_result, latency=replace(found.candidate_result.latency, p99=1e6))
    rejected = build_card(replace(sources, checks=check_evaluation(inputs, slow)), links={}, figures={})
    assert not rejected.accepted
    assert rejected.headline.startswith("Gates failed: latency. ")
    assert "mlops promote" not in render_markdown(rejected)


def test_a_champion_of_other_features_or_classes_is_not_compared(tmp_path: Path) -> None:
    chosen = case("multiclass_classification")
    contract = bundle_of(chosen, tmp_path / "3", 3).contract
    assert comparable(contract, contract, chosen.holdout) is None
    reason = comparable(contract, contract, chosen.holdout.drop_columns(["distance"]))
    assert reason == "version 3, the champion, reads features that the dataset lacks: distance"
    fewer = contract.model_copy(update={"classes": contract.classes[:2]})
    assert comparable(contract, fewer, chosen.holdout) == "version 3, the champion, knows other classes"
