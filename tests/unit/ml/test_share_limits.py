"""A share passes its limit only when chance does not explain it, whatever the number of rows."""

import numpy as np
import pytest

from mlops_assets.ml.share_limits import share_limit


@pytest.mark.parametrize("rows", [1, 40, 1000, 100_000])
@pytest.mark.parametrize("allowed", [0.01, 0.05])
def test_chance_alone_passes_the_limit_as_seldom_as_is_asked(rows: int, allowed: float) -> None:
    limit = share_limit(allowed, rows, 0.001)
    windows = np.random.default_rng(3).binomial(rows, allowed, 50_000) / rows
    assert (windows > limit).mean() <= 0.002
    assert limit >= allowed


def test_one_of_forty_rows_is_chance_and_a_tenth_of_many_is_not() -> None:
    assert share_limit(0.01, 40, 0.001) > 1 / 40
    assert share_limit(0.01, 1000, 0.001) < 0.03
    assert share_limit(0.0, 1000, 0.001) == 0.0
    assert share_limit(1.0, 10, 0.001) == 1.0
