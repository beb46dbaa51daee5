"""Threads of fits: few rows have one, and many are fitted side by side with those that OpenMP has here, to the same models."""

import signal
import threading
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from mlops_assets.ml.averaging import fit_average
from mlops_assets.ml.threads import FitPlan, limited_to, plan_fits


@pytest.mark.parametrize(
    ("threads", "rows", "plan"),
    [
        (8, [2_000], FitPlan(1, (1,))),
        (8, [100_000], FitPlan(1, (4,))),
        (8, [1_000_000], FitPlan(1, (8,))),
        (2, [160_000, 160_000], FitPlan(2, (1, 1))),
        (8, [160_000, 60_000], FitPlan(2, (4, 2))),
        (8, [160_000, 2_000], FitPlan(1, (6, 1))),
        (1, [160_000, 160_000], FitPlan(1, (1, 1))),
        (8, [], FitPlan(1, ())),
    ],
)
def test_threads_are_those_that_rows_are_worth(threads: int, rows: list[int], plan: FitPlan) -> None:
    with threadpool_limits(threads, user_api="openmp"):
        assert plan_fits(rows) == plan


def limits() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "openmp"}


def failed_fit() -> None:
    with limited_to(2):
        assert limits() == {2}
        raise ZeroDivisionError


def test_a_limit_ends_with_its_fit_also_when_that_fails() -> None:
    with threadpool_limits(4, user_api="openmp"):
        with pytest.raises(ZeroDivisionError):
            failed_fit()
        assert limits() == {4}


def test_models_that_are_fitted_side_by_side_are_those_of_fits_in_turn() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(12_000, 4))
    labels = (features[:, 0] + random.normal(size=12_000) > 0).astype(int)
    histories = [np.ones(12_000), 0.5 ** (np.arange(12_000)[::-1] / 4000)]
    estimator = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    fitted = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="openmp"):
            assert plan_fits([12_000, 12_000]).side_by_side == threads
            fitted.append(fit_average(estimator, features, labels, histories).predict_proba(features))
    assert (fitted[0] == fitted[1]).all()


def test_what_a_fit_raises_is_raised() -> None:
    features, labels = np.full((20_000, 2), np.inf), np.arange(20_000) % 2
    estimator = HistGradientBoostingClassifier(max_iter=2, max_bins=1)
    with threadpool_limits(2, user_api="openmp"), pytest.raises(ValueError, match="max_bins"):
        fit_average(estimator, features, labels, [np.ones(20_000), np.ones(20_000)])


ENOUGH = threading.Event()


class Endless(ClassifierMixin, BaseEstimator):
    """An estimator whose fit does not end by itself."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Endless":
        ENOUGH.wait()
        return self


@pytest.mark.parametrize("threads", [1, 2])
def test_who_is_interrupted_waits_for_no_fit(threads: int) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    features, labels = np.zeros((20_000, 2)), np.arange(20_000) % 2
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with threadpool_limits(threads, user_api="openmp"), pytest.raises(KeyboardInterrupt):
            fit_average(Endless(), features, labels, [np.ones(20_000), np.ones(20_000)])
        assert not ENOUGH.is_set()
    finally:
        signal.signal(signal.SIGALRM, before)
        ENOUGH.set()
        ENOUGH.clear()
