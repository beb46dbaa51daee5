"""Rows from before the window: left out where they make the average lose more than without them, beyond chance."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest

from mlops_assets.ml.earlier_rows import compare_earlier_rows, without_earlier_rows
from mlops_assets.ml.history import History
from mlops_assets.ml.shared_fits import Models, Stream

A_DAY = 50
DAYS = np.repeat(np.arange("2024-01-01", "2024-04-10", dtype="datetime64[D]"), A_DAY)
HISTORIES = (History(days=28, earlier=2000), History(days=28, half_life=9))
FITTED = date(2024, 3, 25)


class Share:
    """Predicts the share of the positive labels among the rows that it was fitted on."""

    def __init__(self, labels: np.ndarray):
        self.labels = labels

    def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        return np.full(len(later), np.average(self.labels[rows], weights=weights))


def models(share_before: float, share_since: float, learner: type[Share] = Share) -> Models:
    """The models of 100 days, of which another share of labels is positive in the last 28 before `FITTED` and since."""
    random = np.random.default_rng(0)
    shares = np.where(np.datetime64(FITTED) - np.timedelta64(28, "D") > DAYS, share_before, share_since)
    labels = (random.random(len(DAYS)) < shares).astype(int)
    stream = Stream("binary_classification", DAYS, DAYS + 1, labels, (0, 1))
    return Models(stream, learner(labels), squared=False, folder=None, identity="")


@pytest.mark.parametrize(("before", "since", "worse"), [(0.9, 0.1, True), (0.3, 0.3, False), (0.31, 0.3, False)])
def test_rows_of_another_relation_make_the_average_lose_more(before: float, since: float, worse: bool) -> None:
    places = np.flatnonzero(np.datetime64(FITTED) <= DAYS)
    difference = compare_earlier_rows(models(before, since), HISTORIES, FITTED, places, DAYS[places].astype(int))
    assert difference is not None
    assert difference.is_worse == worse
    assert difference.rows == len(places)


def test_no_row_to_compare_on_tells_nothing() -> None:
    nowhere = np.array([], dtype=int)
    assert compare_earlier_rows(models(0.9, 0.1), HISTORIES, FITTED, nowhere, nowhere) is None


def test_earlier_rows_are_drawn_again_and_no_more_than_are_asked_for() -> None:
    class Recorder(Share):
        rows: Sequence[int] = ()

        def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
            self.rows = rows.tolist()
            return super().fit_predict(rows, weights, later)

    stream = models(0.5, 0.5, Recorder)
    taken = []
    for earlier in (500, 1000, 100_000):
        stream.get(History(days=28, earlier=earlier), FITTED)
        assert isinstance(stream._learner, Recorder)
        taken.append({row for row in stream._learner.rows if DAYS[row] < np.datetime64(FITTED) - np.timedelta64(28, "D")})
    few, more, every = taken
    assert few < more < every
    assert 400 < len(few) < 600
    assert len(every) == (FITTED - date(2024, 1, 1)).days * A_DAY - 28 * A_DAY


def test_the_window_alone_has_none() -> None:
    assert without_earlier_rows(HISTORIES) == (History(days=28), History(days=28, half_life=9))
