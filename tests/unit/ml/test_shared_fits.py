"""Fits that policies share: which rows a history takes, and the loss of each kind of prediction."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest

from mlops_assets.ml.history import History
from mlops_assets.ml.shared_fits import Models, Stream


class Recorder:
    """Keeps what it was asked to fit on, and predicts one half."""

    def __init__(self) -> None:
        self.rows: Sequence[int] = ()
        self.weights: Sequence[float] | None = None

    def fit_predict(self, rows: np.ndarray, weights: np.ndarray | None, later: np.ndarray) -> np.ndarray:
        self.rows, self.weights = rows.tolist(), None if weights is None else weights.tolist()
        return np.full(len(later), 0.5)


DAYS = np.arange("2024-01-01", "2024-01-11", dtype="datetime64[D]")


def models(learner: Recorder, *, delay: int = 0) -> Models:
    stream = Stream("binary_classification", DAYS, DAYS + 1 + delay, np.arange(10) % 2, (0, 1))
    return Models(stream, learner, squared=False, folder=None, identity="")


@pytest.mark.parametrize(
    ("history", "delay", "rows"),
    [(History(), 0, [0, 1, 2, 3, 4]), (History(days=2), 0, [3, 4]), (History(), 3, [0, 1]), (History(days=2), 3, [])],
)
def test_a_history_takes_the_rows_whose_labels_are_known(history: History, delay: int, rows: Sequence[int]):
    learner = Recorder()
    fitted = models(learner, delay=delay).get(history, date(2024, 1, 6))
    assert learner.rows == rows
    assert np.isnan(fitted.predictions).tolist() == [True] * 5 + [False] * 5
    assert fitted.losses[5:] == pytest.approx(np.log(2))


def test_a_half_life_weighs_by_age():
    learner = Recorder()
    models(learner).get(History(half_life=1), date(2024, 1, 6))
    assert learner.weights == pytest.approx([2.0**-age for age in (5, 4, 3, 2, 1)])


def test_a_probe_is_fitted_on_a_sample_that_the_weights_draw():
    learner = Recorder()
    days = np.repeat(np.arange("2024-01-01", "2024-03-01", dtype="datetime64[D]"), 200)
    stream = Stream("binary_classification", days, days + 1, np.arange(len(days)) % 2, (0, 1))
    whole = Models(stream, learner, squared=False, folder=None, identity="")
    for history in (History(), History(half_life=10)):
        whole.probe(history, date(2024, 3, 1))
        assert len(set(learner.rows)) == 2000
        # Drawn by their weights: no estimator has to know of them.
        assert learner.weights is None
        newest = np.mean(days[learner.rows] >= np.datetime64("2024-02-20"))
        assert (newest > 0.4) == (history.half_life is not None)
    again = Models(stream, other := Recorder(), squared=False, folder=None, identity="")
    again.probe(History(half_life=10), date(2024, 3, 1))
    assert other.rows == learner.rows
    # A whole model of the same day is another one.
    whole.get(History(half_life=10), date(2024, 3, 1))
    assert len(learner.rows) > 2000


def test_a_probe_of_few_rows_is_fitted_on_half_of_them():
    learner = Recorder()
    models(learner).probe(History(), date(2024, 1, 11))
    assert len(learner.rows) == 5


def test_losses_of_classes_and_numbers():
    two = DAYS[:2]
    classes = Stream("multiclass_classification", two, two, np.array([0, 2]), ("a", "b", "c"))
    probabilities = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]])
    # A probability of 0 of what happened costs as much as 1 %.
    expected = [-np.log(0.5), -np.log(0.01)]
    assert Models(classes, Recorder(), squared=False, folder=None, identity="").losses(probabilities) == pytest.approx(expected)
    numbers = Stream("regression", two, two, np.array([1.0, 2.0]))
    for squared, losses in ((False, [2, 1]), (True, [4, 1])):
        assert Models(numbers, Recorder(), squared=squared, folder=None, identity="").losses(
            np.array([3.0, 1.0])
        ).tolist() == pytest.approx(losses)
