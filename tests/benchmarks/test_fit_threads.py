"""Fits of an average with the threads that their rows are worth, beside fits in turn with all threads."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from figures import compare
from sklearn.ensemble import HistGradientBoostingClassifier

from mlops_assets.ml.averaging import fit_average
from mlops_assets.ml.weighted_binning import sort_once

_TIMES = 3


@pytest.mark.parametrize("rows", [2_000, 30_000, 160_000])
def test_fits_of_an_average(rows: int) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(rows, 42))
    labels = (features[:, 0] + random.normal(size=rows) > 0).astype(int)
    histories = [np.ones(rows), 0.5 ** (np.arange(rows)[::-1] / (rows / 3))]
    estimator = HistGradientBoostingClassifier(max_iter=100, min_samples_leaf=100, early_stopping=False, random_state=0)
    sort_once()

    def in_turn() -> None:
        estimator.fit(features, labels)
        estimator.fit(features, labels, sample_weight=histories[1])

    ours, theirs = [], []
    for _ in range(_TIMES):
        theirs.append(_seconds(in_turn))
        ours.append(_seconds(lambda: fit_average(estimator, features, labels, histories)))
    compare(
        f"two fits of an average on {rows:,} rows of 42 features",
        ours=float(np.median(ours)),
        beside="one after the other with all threads",
        theirs=float(np.median(theirs)),
        unit="s",
        at_most=1.0,
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
