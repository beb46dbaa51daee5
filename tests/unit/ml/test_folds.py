import numpy as np
import pytest

from mlops_assets.ml.folds import time_folds

DAY = np.timedelta64(1, "D")


def moments(days: list[int]) -> np.ndarray:
    return np.datetime64("2013-01-01T00:00:00", "us") + np.array(days) * DAY


def test_parts_follow_each_other_and_are_predicted_from_what_was_known_before() -> None:
    predicted = moments([3, 0, 1, 2, 7, 6, 5, 4])
    folds = time_folds(predicted, predicted + DAY // 2, folds=2, seed=0)
    assert [sorted(predicted[fold.validation]) for fold in folds] == [list(moments([4, 5])), list(moments([6, 7]))]
    assert [sorted(predicted[fold.train]) for fold in folds] == [list(moments([0, 1, 2, 3])), list(moments([0, 1, 2, 3, 4, 5]))]


def test_a_label_that_came_later_is_not_fitted_on() -> None:
    predicted = moments(list(range(8)))
    known = predicted + 2 * DAY
    first, second = time_folds(predicted, known, folds=2, seed=0)
    assert list(first.train) == [0, 1]
    assert list(second.train) == [0, 1, 2, 3]


def test_rows_of_one_moment_are_dealt_out_by_the_seed() -> None:
    predicted = moments([5] * 10)
    folds = time_folds(predicted, predicted + DAY, folds=3, seed=1)
    assert sorted(np.concatenate([fold.validation for fold in folds])) == list(range(10))
    for fold in folds:
        assert not set(fold.train) & set(fold.validation)
        assert len(fold.train) + len(fold.validation) == 10
    again = time_folds(predicted, predicted + DAY, folds=3, seed=1)
    assert [list(fold.validation) for fold in folds] == [list(fold.validation) for fold in again]
    other = time_folds(predicted, predicted + DAY, folds=3, seed=2)
    assert [list(fold.validation) for fold in folds] != [list(fold.validation) for fold in other]


@pytest.mark.parametrize("days", [[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
def test_too_few_moments_are_an_error(days: list[int]) -> None:
    with pytest.raises(ValueError, match="2 moments of prediction, too few for 3 folds"):
        time_folds(moments(days), moments(days) + DAY, folds=3, seed=0)


def test_labels_that_all_come_late_are_an_error() -> None:
    predicted = moments(list(range(8)))
    with pytest.raises(ValueError, match="No label was known before the fold that begins at 2013-01-05"):
        time_folds(predicted, predicted + 30 * DAY, folds=2, seed=0)
