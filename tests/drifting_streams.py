"""Streams of labelled rows whose relation of feature and label changes as asked for, and a learner that is fitted in no time. No tests here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from mlops_assets.ml.prequential import Prequential, equal_windows
from mlops_assets.ml.shared_fits import Models, Stream

FIRST, WEEKS_BEFORE, ROWS_A_DAY = date(2024, 1, 1), 10, 40


@dataclass(frozen=True)
class LinearLearner:
    """Logistic regression, or linear regression, on two features."""

    features: np.ndarray
    stream: Stream

    def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import LinearRegression, LogisticRegression

        labels = self.stream.labels[rows]
        if self.stream.problem == "regression":
            return LinearRegression().fit(self.features[rows], labels, weights).predict(self.features[later])
        model = LogisticRegression().fit(self.features[rows], labels, weights)
        probabilities = model.predict_proba(self.features[later])
        return probabilities[:, 1] if self.stream.problem == "binary_classification" else probabilities


def evaluation(
    angles: Sequence[float],
    *,
    problem: str = "binary_classification",
    delay: int = 0,
    wrong: Sequence[int] = (),
    seed: int = 0,
    folder: Path | None = None,
) -> Prequential:
    """The windows of a stream of one week for each of `angles`, after some weeks of the first; the label follows the feature that the angle
    points to. In the weeks `wrong` the labels are the opposite. Labels are known `delay` days late.
    """
    random = np.random.default_rng(seed)
    weekly = np.array([angles[0]] * WEEKS_BEFORE + list(angles))
    week = np.repeat(np.arange(len(weekly)), 7 * ROWS_A_DAY)
    days = np.datetime64(FIRST) + np.repeat(np.arange(7 * len(weekly)), ROWS_A_DAY)
    features = random.normal(size=(len(days), 2))
    score = 2 * (features[:, 0] * np.cos(weekly[week]) + features[:, 1] * np.sin(weekly[week]))
    score *= np.where(np.isin(week, [WEEKS_BEFORE + number for number in wrong]), -1, 1)
    classes: tuple[int, ...] = ()
    match problem:
        case "binary_classification":
            labels, classes = (random.random(len(days)) < 1 / (1 + np.exp(-score))).astype(int), (0, 1)
        case "multiclass_classification":
            labels, classes = np.digitize(score + random.logistic(size=len(days)), [-1, 1]), (10, 20, 30)
        case _:
            labels = score + random.normal(size=len(days))
    stream = Stream(problem=problem, days=days, known=days + 1 + delay, labels=labels, classes=classes)
    models = Models(stream, LinearLearner(features, stream), squared=False, folder=folder, identity=f"{angles}{problem}{seed}")
    return Prequential(
        models,
        windows=equal_windows(stream, FIRST + timedelta(weeks=WEEKS_BEFORE), 7),
        holdout_days=14,
        half_life=7 * WEEKS_BEFORE // 3,
        metric={"regression": "mean_absolute_error"}.get(problem, "roc_auc"),
    )
