"""Bins of weighted rows for which a feature is sorted once, until scikit-learn's release has its own mend.

Gradient boosting by histograms cuts each feature at 255 quantiles. Up to scikit-learn 1.9 it sorts a feature of weighted rows for each of
them: of 100,000 rows and 32 features that is nine tenths of a fit. Here it is asked for all quantiles of a feature at once, which gives the
same values. Its own mend is [pull request 34248](https://github.com/scikit-learn/scikit-learn/pull/34248), merged in 2026 for 1.10.
"""

import threading
from functools import wraps
from typing import Any

import numpy as np

MENDED = (1, 10)
"""The version of scikit-learn that needs none of this."""

_wrapping = threading.Lock()
_asked = threading.local()
"""Of the thread that cuts a feature: how many quantiles it wants, and those of the feature that it asked for last."""


def sort_once() -> None:
    """Let all fits of this process that follow sort a feature of weighted rows once. Does nothing the second time, or from 1.10 on."""
    from sklearn import __version__
    from sklearn.ensemble._hist_gradient_boosting import binning

    with _wrapping:
        find_thresholds, weighted_percentile = binning._find_binning_thresholds, binning._weighted_percentile
        if tuple(map(int, __version__.split(".")[:2])) >= MENDED or hasattr(find_thresholds, "__wrapped__"):
            return

        @wraps(find_thresholds)
        def find_thresholds_at_once(col_data: Any, max_bins: int, sample_weight: Any = None) -> Any:
            # The positions for which `find_thresholds` asks one after the other.
            _asked.positions, _asked.of = np.linspace(0, 100, num=max_bins + 1)[1:-1], None
            try:
                return find_thresholds(col_data, max_bins, sample_weight)
            finally:
                _asked.of = None

        @wraps(weighted_percentile)
        def percentile_at_once(array: Any, sample_weight: Any, percentile_rank: float, average: bool = False) -> Any:
            if _asked.of is not array:
                values = weighted_percentile(array, sample_weight, _asked.positions, average=average)
                _asked.of, _asked.values = array, dict(zip(_asked.positions, values, strict=True))
            return _asked.values[percentile_rank]

        binning._find_binning_thresholds, binning._weighted_percentile = find_thresholds_at_once, percentile_at_once
