"""Fitting of a model by the training section of a solution: search, final fit, calibration, decision threshold.

All of it sees the training rows alone; the hold-out never comes here. Registering the result belongs to `training/model.py`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlops_assets.engine.engine import Engine
from mlops_assets.ml.history import History
from mlops_assets.schema.training_rules import needs_folds
from mlops_assets.schema.training_section import Step as DeclaredStep
from mlops_assets.schema.training_section import ThresholdRule
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import WHOLE_DATASET, allowed_histories, history_weights
from mlops_assets.training.export import export_model

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from optuna.storages import BaseStorage
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.cross_validation import ModelSpecification, TrainingRows
    from mlops_assets.ml.folds import Fold
    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.pipeline_steps import PipelineStep
    from mlops_assets.ml.search import Report, SearchPlan, SearchResult

_DEFAULT_THRESHOLD = 0.5
_TRIED_ROWS = 100


@dataclass(frozen=True)
class FittedModel:
    """A fitted pipeline, the configuration of its estimator, the decision threshold (None unless binary), and the seconds of the fit.

    `threshold_objective` is what the threshold rule reached on out-of-fold predictions, None without a rule.
    """

    pipeline: "Pipeline"
    estimator: "PipelineStep"
    threshold: float | None
    threshold_objective: float | None
    seconds: float


def default_estimator(inputs: SolutionInputs) -> "PipelineStep":
    """`training.estimator` as it is."""
    return _step(inputs.solution.training.estimator)


def run_search(
    inputs: SolutionInputs,
    schema: "FeatureSchema",
    train: "pa.Table",
    *,
    storage: "AbstractContextManager[BaseStorage]",
    name: str,
    report: "Report",
    engine: Engine,
) -> "SearchResult":
    """The search that the training section declares, as the study `name` in `storage`, whose trials run on `engine`.

    Raises ValueError when it cannot begin.
    """
    from mlops_assets.ml.cross_validation import ScoredFolds
    from mlops_assets.ml.search import search

    training = inputs.solution.training
    rule = training.decision_threshold
    scored = ScoredFolds(
        model_specification(inputs, schema),
        training_rows(inputs, schema, train),
        _folds(inputs, train),
        training.metric,
        _DEFAULT_THRESHOLD if isinstance(rule, ThresholdRule) else rule,
    )
    plan = _plan(inputs)
    for step in (plan.default, *(candidate.step for candidate in plan.candidates)):
        # A wrong parameter, or an estimator that cannot serve, is a mistake in the file: it ends the search before it begins.
        _check_export(inputs, scored.specification, schema, step, scored.rows)
    score = scored.score  # one function, which goes to the engine once

    def fold_scores(step: "PipelineStep") -> "Iterator[float]":
        return engine.map(score, ((step, number) for number in range(len(scored.folds))), in_flight=1)

    with storage as opened:
        return search(plan, fold_scores, storage=opened, name=name, report=report, processors=engine.processors)


def fit_model(inputs: SolutionInputs, schema: "FeatureSchema", train: "pa.Table", estimator: "PipelineStep") -> FittedModel:
    """Fit `estimator` on all training rows, as the average of one fit on each history of the solution.

    Calibrate it and choose its threshold on out-of-fold predictions.

    Raises ValueError when the rows do not allow it.
    """
    from mlops_assets.ml.cross_validation import fit_rows, out_of_fold

    training = inputs.solution.training
    specification, rows = (
        model_specification(inputs, schema),
        training_rows(inputs, schema, train, allowed_histories(inputs.solution)),
    )
    began = time.perf_counter()
    pipeline = fit_rows(specification, estimator, rows)
    seconds = time.perf_counter() - began
    rule = training.decision_threshold
    threshold = None if isinstance(rule, ThresholdRule) else rule
    objective = None
    if needs_folds(training):
        labels, predictions = out_of_fold(specification, estimator, rows, _folds(inputs, train))
        scores = predictions[:, 1]
        if training.calibration:
            pipeline, scores = _calibrate(pipeline, training.calibration, labels, scores)
        if isinstance(rule, ThresholdRule):
            threshold, objective = _choose(rule, labels, scores)
    return FittedModel(
        pipeline=pipeline,
        estimator=estimator,
        threshold=threshold if inputs.solution.problem == "binary_classification" else None,
        threshold_objective=objective,
        seconds=seconds,
    )


def _check_export(
    inputs: SolutionInputs,
    specification: "ModelSpecification",
    schema: "FeatureSchema",
    step: "PipelineStep",
    rows: "TrainingRows",
) -> None:
    """Raise ValueError when `step`, fitted on a few rows of each class, cannot serve."""
    import numpy as np

    from mlops_assets.ml.cross_validation import fit_rows

    first = np.arange(_TRIED_ROWS)
    if specification.problem != "regression":
        first = np.concatenate([np.flatnonzero(rows.labels == label)[:_TRIED_ROWS] for label in np.unique(rows.labels)])
    few = rows.take(first[first < len(rows.labels)])
    # In few rows a feature may have no value at all, which not every estimator takes.
    pipeline = fit_rows(specification, step, replace(few, frame=few.frame.fillna(0)))
    export_model(pipeline, schema, inputs.solution)


def _calibrate(pipeline: "Pipeline", method: Any, labels: "np.ndarray", scores: "np.ndarray") -> "tuple[Pipeline, np.ndarray]":
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.calibration import apply_curve, fit_curve
    from mlops_assets.ml.estimators.calibrated import CalibratedClassifier

    curve = fit_curve(method, scores, labels)
    *steps, (name, estimator) = pipeline.steps
    return Pipeline([*steps, (name, CalibratedClassifier(estimator, curve))]), apply_curve(curve, scores)


def _choose(rule: ThresholdRule, labels: "np.ndarray", scores: "np.ndarray") -> tuple[float, float]:
    from mlops_assets.ml.threshold import METRICS, choose_threshold, negative_cost

    if rule.cost is not None:
        chosen = choose_threshold(labels, scores, negative_cost(rule.cost.false_positive, rule.cost.false_negative))
    else:
        chosen = choose_threshold(labels, scores, METRICS[str(rule.maximize)])
    return chosen.threshold, chosen.value


def _plan(inputs: SolutionInputs) -> "SearchPlan":
    from mlops_assets.ml.search import Candidate, Dimension, SearchPlan
    from mlops_assets.schema.metric_names import greater_is_better

    training = inputs.solution.training
    search_section = training.effective_search
    if search_section is None:
        raise ValueError(f"{inputs.name} declares no search.")
    return SearchPlan(
        default=_step(training.estimator),
        candidates=[
            Candidate(
                step=_step(candidate),
                space={
                    name: Dimension(space.low, space.high, space.log, space.choices) for name, space in candidate.space.items()
                },
            )
            for candidate in search_section.candidates
        ],
        trials=search_section.trials,
        seconds=search_section.seconds,
        pruning=search_section.pruning,
        jobs=search_section.jobs,
        seed=training.seed,
        greater_is_better=greater_is_better(training.metric),
    )


def model_specification(inputs: SolutionInputs, schema: "FeatureSchema") -> "ModelSpecification":
    """Return the parts of the solution's models besides the estimator."""
    from mlops_assets.ml.cross_validation import ModelSpecification

    training = inputs.solution.training
    return ModelSpecification(
        problem=inputs.solution.problem,
        schema=schema,
        numeric=_steps(training.preprocessing.numeric),
        categorical=_steps(training.preprocessing.categorical),
        seed=training.seed,
    )


def training_rows(
    inputs: SolutionInputs, schema: "FeatureSchema", train: "pa.Table", histories: Sequence[History] = (WHOLE_DATASET,)
) -> "TrainingRows":
    """Return the rows of `train`, with their weights in each of `histories`, as an estimator is fitted on them.

    Raises ValueError for a weight or a label that is none.
    """
    import pyarrow as pa

    from mlops_assets.ml.cross_validation import TrainingRows, check_weights
    from mlops_assets.ml.matrix import to_frame
    from mlops_assets.schema.problem import label_array

    solution = inputs.solution
    weights = None
    if (column := solution.training.sample_weight) is not None:
        weights = check_weights(train.column(column).cast(pa.float64()).to_numpy())
    return TrainingRows(
        frame=to_frame(train, schema),
        labels=label_array(train.column(solution.spine.label), solution.problem),
        weights=weights,
        balanced=solution.training.class_weight == "balanced",
        histories=()
        if tuple(histories) == (WHOLE_DATASET,)
        else tuple(history_weights(inputs, train, history) for history in histories),
    )


def _folds(inputs: SolutionInputs, train: "pa.Table") -> "Sequence[Fold]":
    from mlops_assets.ml.folds import time_folds

    spine, training = inputs.solution.spine, inputs.solution.training
    times = (train.column(name).to_numpy() for name in (spine.prediction_time, spine.label_time))
    return time_folds(*times, folds=training.folds, seed=training.seed)


def _steps(steps: list[DeclaredStep] | None) -> "list[PipelineStep] | None":
    return None if steps is None else [_step(step) for step in steps]


def _step(step: DeclaredStep) -> "PipelineStep":
    from mlops_assets.ml.pipeline_steps import PipelineStep

    return PipelineStep(class_path=step.type, parameters=step.parameters)
