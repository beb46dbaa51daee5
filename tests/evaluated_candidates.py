"""Candidates of the three problems, evaluated through their real bundles. No tests here."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from bundles import fit_bundle, load

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.schema.problem import Problem, label_array
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.bundle import Bundle
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training import dataset_checks as dataset
from mlops_assets.training.candidate_evaluation import CandidateEvaluation, ComparedChampion, evaluate_candidate
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
            "flight_date": [(start + timedelta(hours=number)).date() for number in range(rows)],
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
        "partitions": {"column": "flight_date", "start": "2013-01-01", "time_zone": "America/New_York"},
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
        estimator=PipelineStep(solution.training.estimator.type, solution.training.estimator.parameters),
        requests=[{"flight_id": "f1"}],
        version=version,
    )
    fitted.write(path)
    return load(path)


def evaluated(case: Case, bundle: Bundle, rival: ComparedChampion, served: Bundle | None = None) -> CandidateEvaluation:
    solution = case.inputs.solution
    return evaluate_candidate(
        solution,
        bundle,
        rival=rival,
        holdout=case.holdout,
        training_labels=label_array(case.train.column(solution.spine.label), solution.problem),
        dataset=DatasetState("run", tuple(rule.name for rule in dataset.RULES), (), (), unchanged=True),
        served=served,
    )


@dataclass(frozen=True)
class Candidate:
    """A evaluated candidate, beside itself as the champion."""

    case: Case
    bundle: Bundle
    evaluated: CandidateEvaluation


def evaluated_candidate(problem: Problem, folder: Path) -> Candidate:
    """A candidate of `problem` beside itself as the champion."""
    chosen = case(problem)
    bundle = bundle_of(chosen, folder / "2", 2)
    champion = RegisteredModel("example", 7, "run", {})
    return Candidate(chosen, bundle, evaluated(chosen, bundle, ComparedChampion(model=champion, bundle=bundle, reason="")))
