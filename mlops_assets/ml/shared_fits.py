"""Fits that policies share: the model of one history and one day is fitted once, and its predictions of later rows are kept on disk."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np

from mlops_assets.ml.history import History
from mlops_assets.ml.loss_comparison import row_losses
from mlops_assets.ml.training_forecast import PROBE_ROWS
from mlops_assets.schema.problem import Problem

_LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Stream:
    """Labelled rows in order of time.

    `days` is the day of each row's prediction, `known` the first day on which its label may be used, both datetime64[D].
    Labels of several classes are positions in `classes`.
    """

    problem: Problem
    days: np.ndarray
    known: np.ndarray
    labels: np.ndarray
    classes: Sequence[int | str] = ()


class Learner(Protocol):
    """The estimator of a solution."""

    def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        """Fit a model on the rows at these positions, and return its predictions of the rows at the positions `later`."""


@dataclass(frozen=True)
class FittedPredictions:
    """What the model of one history and day predicts: of each row, NaN before the day. `losses` are of each row."""

    predictions: np.ndarray
    losses: np.ndarray
    seconds: float


class Models:
    """The models of one stream, each fitted when it is first asked for."""

    def __init__(self, stream: Stream, learner: Learner, *, squared: bool, folder: Path | None, identity: str):
        self.stream = stream
        self._learner = learner
        self._squared = squared
        self._folder = folder
        self._identity = identity
        self._fitted: dict[tuple[History, date, int | None], FittedPredictions] = {}
        self._averages: dict[tuple[tuple[History, ...], date], FittedPredictions] = {}
        # A row that is drawn for a small share is drawn for a larger one.
        self._draws = np.random.default_rng(0).random(len(stream.days))
        self.fitted_now = 0

    def get(self, history: History, day: date) -> FittedPredictions:
        """Return the model fitted on `history` before `day` with the labels known then."""
        return self._get(history, day, None)

    def average(self, histories: tuple[History, ...], day: date) -> FittedPredictions:
        """Return the average of the models fitted on `histories` before `day`."""
        if len(histories) == 1:
            return self.get(histories[0], day)
        if (histories, day) not in self._averages:
            fits = [self.get(history, day) for history in histories]
            predictions = np.mean([fit.predictions for fit in fits], axis=0)
            self._averages[histories, day] = FittedPredictions(
                predictions, self.losses(predictions), sum(fit.seconds for fit in fits)
            )
        return self._averages[histories, day]

    def probe(self, history: History, day: date) -> FittedPredictions:
        """Return such a model fitted on a sample of the rows, drawn by their weights: it is worse, ages as soon, and costs little."""
        return self._get(history, day, PROBE_ROWS)

    def _get(self, history: History, day: date, most_rows: int | None) -> FittedPredictions:
        identity = (history, day, most_rows)
        if identity not in self._fitted:
            predictions, seconds = self._read_or_fit(history, day, most_rows)
            self._fitted[identity] = FittedPredictions(predictions, self.losses(predictions), seconds)
        return self._fitted[identity]

    def losses(self, predictions: np.ndarray) -> np.ndarray:
        """Return the loss of each row; see `row_losses`."""
        return row_losses(self.stream.problem, self.stream.labels, predictions, squared=self._squared)

    def _read_or_fit(self, history: History, day: date, most_rows: int | None) -> tuple[np.ndarray, float]:
        sample = "" if most_rows is None else f" {most_rows} rows"
        name = hashlib.sha256(f"{self._identity} {history} {day}{sample}".encode()).hexdigest()[:32]
        path = self._folder / f"{name}.npz" if self._folder else None
        if path and path.exists():
            with np.load(path) as kept:
                return kept["predictions"], float(kept["seconds"])
        rows, weights = self._rows(history, day, most_rows)
        later = np.flatnonzero(self.stream.days >= np.datetime64(day))
        began = time.process_time()
        predicted = self._learner.fit_predict(rows, weights, later)
        seconds = time.process_time() - began
        self.fitted_now += 1
        predictions = np.full((len(self.stream.days), *predicted.shape[1:]), np.nan, dtype=np.float32)
        predictions[later] = predicted
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished.npz")
            np.savez_compressed(unfinished, predictions=predictions, seconds=seconds)
            unfinished.replace(path)
        return predictions, seconds

    def _drawn_earlier(self, known: np.ndarray, recent: np.ndarray, earlier: int) -> np.ndarray:
        """Return which rows are drawn of the `known` ones before the `recent` ones: about `earlier` of them."""
        count = np.count_nonzero(known & ~recent)
        return ~recent & (self._draws < (earlier / count if count else 0.0))

    def _rows(self, history: History, day: date, most_rows: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        known = (self.stream.known <= np.datetime64(day)) & (self.stream.days < np.datetime64(day))
        ages = (np.datetime64(day) - self.stream.days).astype(int)
        weights: np.ndarray | None = None
        if history.days is not None:
            recent = ages <= history.days
            known &= recent | self._drawn_earlier(known, recent, history.earlier)
        if history.half_life is not None:
            weights = 0.5 ** (ages / history.half_life)
            known &= weights > _LEAST_WEIGHT
        rows = np.flatnonzero(known)
        weights = None if weights is None else weights[rows]
        if most_rows is None:
            return rows, weights
        # Those that are drawn by their weights weigh the same: an estimator that takes no weights does too.
        shares = None if weights is None else weights / weights.sum()
        count = min(most_rows, len(rows) // 2)
        drawn = np.random.default_rng(day.toordinal()).choice(len(rows), count, replace=False, p=shares)
        return rows[np.sort(drawn)], None
