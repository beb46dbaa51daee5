"""Cross-validation of one model specification: the score of each fold, and predictions of rows that the model had not seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.ml.folds import Fold
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline, predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.problem import Problem

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class ModelSpecification:
    """The parts of a model besides its estimator: the problem, the features and their transformers (None: the default), the seed."""

    problem: Problem
    schema: FeatureSchema
    numeric: Sequence[PipelineStep] | None
    categorical: Sequence[PipelineStep] | None
    seed: int

    def build(self, estimator: PipelineStep) -> "Pipeline":
        """The unfitted pipeline with `estimator`. Raises ValueError when it does not suit."""
        return build_pipeline(
            problem=self.problem,
            schema=self.schema,
            estimator=estimator,
            numeric=self.numeric,
            categorical=self.categorical,
            seed=self.seed,
        )


@dataclass(frozen=True)
class TrainingRows:
    """The frame of `matrix.to_frame`, the labels of `problem.label_array`, and a weight a row or none; `balanced` weighs classes.

    `histories` are the weights of all rows in each history of which models are averaged, beside `weights`; none: one model of all rows.
    """

    frame: "pd.DataFrame"
    labels: np.ndarray
    weights: np.ndarray | None
    balanced: bool
    histories: tuple[np.ndarray, ...] = ()

    def take(self, positions: np.ndarray) -> "TrainingRows":
        """The rows at `positions`."""
        weights = None if self.weights is None else self.weights[positions]
        histories = tuple(history[positions] for history in self.histories)
        return TrainingRows(self.frame.iloc[positions], self.labels[positions], weights, self.balanced, histories)

    def fit_weights(self) -> np.ndarray | None:
        """Return the weights of the rows in fitting: `weights`, times rows / (classes x rows of the class) when `balanced`."""
        if not self.balanced:
            return self.weights
        _, codes, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        by_class = len(self.labels) / (len(counts) * counts)
        return by_class[codes] if self.weights is None else by_class[codes] * self.weights


def check_weights(weights: np.ndarray) -> np.ndarray:
    """`weights` as they are. Raises ValueError unless all are finite and 0 or more, and some are more."""
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError("Weights are numbers, 0 or more, and not all 0; none may be missing.")
    return weights


def fit_rows(specification: ModelSpecification, estimator: PipelineStep, rows: TrainingRows) -> "Pipeline":
    """A pipeline with `estimator` fitted on `rows`. Raises ValueError when it cannot be."""
    weights = rows.fit_weights()
    histories = [history if weights is None else history * weights for history in rows.histories]
    return fit_pipeline(specification.build(estimator), rows.frame, rows.labels, weights, histories=histories)


def fold_predictions(
    specification: ModelSpecification, estimator: PipelineStep, rows: TrainingRows, folds: Sequence[Fold]
) -> Iterator[np.ndarray]:
    """Per fold the predictions of its validation rows: probabilities [rows, classes] in the order of all classes, or values [rows].

    Raises ValueError when a fold's rows to fit on lack a class.
    """
    for number, fold in enumerate(folds):
        yield _fold_prediction(specification, estimator, rows, fold, number)


def _fold_prediction(
    specification: ModelSpecification, estimator: PipelineStep, rows: TrainingRows, fold: Fold, number: int
) -> np.ndarray:
    classes = np.unique(rows.labels) if specification.problem != "regression" else None
    train = rows.take(fold.train)
    if classes is not None and len(missing := np.setdiff1d(classes, train.labels)):
        raise ValueError(
            f"The rows to fit on in fold {number + 1} lack the class {missing[0]}: lower training.folds or widen training.window."
        )
    pipeline = fit_rows(specification, estimator, train)
    return predict(pipeline, rows.frame.iloc[fold.validation], specification.problem)


@dataclass(frozen=True)
class ScoredFolds:
    """The folds of `rows` and the metric by which models are compared."""

    specification: ModelSpecification
    rows: TrainingRows
    folds: Sequence[Fold]
    metric: str
    threshold: float

    def score(self, part: tuple[PipelineStep, int]) -> float:
        """The value of the metric for an estimator in the fold of a number from 0.

        Raises ValueError when the fold does not define it, such as a ranking of rows of one class.
        """
        (estimator, number), problem = part, self.specification.problem
        fold, labels = self.folds[number], self.rows.labels
        classes = tuple(np.unique(labels).tolist()) if problem != "regression" else ()
        predicted = _fold_prediction(self.specification, estimator, self.rows, fold, number)
        scored = predicted[:, 1] if problem == "binary_classification" else predicted
        evaluated = WeightedMetrics(problem, labels[fold.validation], scored, classes, self.threshold)
        value = evaluated.values((self.metric,))[self.metric]
        if value is None:
            raise ValueError(f"Fold {number + 1} does not define {self.metric}: lower training.folds or widen training.window.")
        return value


def out_of_fold(
    specification: ModelSpecification, estimator: PipelineStep, rows: TrainingRows, folds: Sequence[Fold]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of every validation row, from models that had not seen it."""
    predictions = list(fold_predictions(specification, estimator, rows, folds))
    positions = np.concatenate([fold.validation for fold in folds])
    return rows.labels[positions], np.concatenate(predictions)
