"""Searches on a real Ray cluster of this machine: the same trials with the same scores, and a worker that is killed."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from mlops_assets.ml.cross_validation import ModelSpecification, TrainingRows, fold_scores
from mlops_assets.ml.folds import Fold
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.ray_trials import LOCAL, on_ray
from mlops_assets.ml.search import Candidate, Dimension, FoldScores, SearchPlan, SearchResult, search

pytestmark = pytest.mark.long

BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
PLAN = SearchPlan(
    default=PipelineStep(BOOSTING, {"max_iter": 5}),
    candidates=[
        Candidate(PipelineStep(BOOSTING, {"max_iter": 5}), {"learning_rate": Dimension(0.01, 0.5, True, None)}),
        # Half of its configurations fail: `max_iter` has to be positive.
        Candidate(PipelineStep(BOOSTING, {}), {"max_iter": Dimension(-5, 5, False, None)}),
    ],
    trials=8,
    seconds=None,
    pruning=True,
    jobs=1,
    seed=0,
    greater_is_better=True,
)


def run(scores: FoldScores, processors: int | None = None, plan: SearchPlan = PLAN) -> SearchResult:
    return search(plan, scores, storage=InMemoryStorage(), name="s", report=lambda trial, best: None, processors=processors)


@pytest.fixture
def scores(sample) -> FoldScores:
    specification = ModelSpecification("binary_classification", sample.schema, numeric=None, categorical=None, seed=0)
    rows = TrainingRows(sample.frame, sample.labels["binary_classification"], weights=None, balanced=False)
    folds = [Fold(np.arange(0, end), np.arange(end, end + 500)) for end in (1500, 2000, 2500)]

    def of_estimator(estimator: PipelineStep) -> Iterator[float]:
        return fold_scores(
            specification=specification, estimator=estimator, rows=rows, folds=folds, metric="roc_auc", threshold=0.5
        )

    return of_estimator


def dying_once(scores: FoldScores, marker: Path) -> Callable[[PipelineStep], Iterator[float]]:
    def of_estimator(estimator: PipelineStep) -> Iterator[float]:
        for score in scores(estimator):
            yield score
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return of_estimator


def test_a_search_on_ray_is_that_of_this_process_though_a_worker_is_killed(scores: FoldScores, tmp_path: Path) -> None:
    here = run(scores)
    with on_ray(dying_once(scores, tmp_path / "died"), LOCAL) as trials:
        there = run(trials.fold_scores, trials.processors)
        at_once = run(trials.fold_scores, 2, replace(PLAN, jobs=2, trials=4))
    assert (tmp_path / "died").exists()
    assert [replace(trial, seconds=0) for trial in there.trials] == [replace(trial, seconds=0) for trial in here.trials]
    assert {trial.state for trial in there.trials} >= {"complete", "failed"}
    assert len(at_once.trials) == 4
    assert at_once.default.fold_scores == here.default.fold_scores
