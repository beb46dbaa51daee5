import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.usual_drift import DISTANCE_SCHEMA, NOTHING_USUAL, UsualDrift, importance_shares, usual_drift

CELL = ("age", "jensen_shannon")


def distances(effects: list[float], feature: str = "age") -> pa.Table:
    rows = [
        {"window": str(number), "feature": feature, "method": "jensen_shannon", "effect": effect}
        for number, effect in enumerate(effects)
    ]
    return pa.Table.from_pylist(rows, schema=DISTANCE_SCHEMA)


def test_a_usual_window_is_within_the_limit_and_no_window_of_the_period_is_beyond_it() -> None:
    random = np.random.default_rng(0)
    exceeded = []
    for _ in range(300):
        *period, window = np.abs(random.normal(0, 0.1, 27))
        limit = UsualDrift({CELL: np.array(period)}).limit(CELL, 0.01)
        assert limit >= max(period)
        exceeded.append(window > limit)
    assert np.mean(exceeded) < 0.03
    # Not so wide that nothing is unusual.
    assert limit < 0.6


def test_few_windows_say_little_about_rare_distances() -> None:
    many = UsualDrift({CELL: np.tile([0.02, 0.03, 0.04, 0.05, 0.06], 5)})
    few = UsualDrift({CELL: np.array([0.02, 0.03, 0.04, 0.05, 0.06])})
    assert few.limit(CELL, 1e-3) > 1.5 * many.limit(CELL, 1e-3)


def test_one_odd_window_does_not_make_everything_usual() -> None:
    odd = UsualDrift({CELL: np.array([0.03] * 10 + [0.04] * 10 + [0.9])})
    assert odd.limit(CELL, 1e-4) == 0.9


def test_an_effect_is_placed_among_the_windows() -> None:
    usual = usual_drift(pa.concat_tables([distances([0.1, 0.2, 0.3, 0.4, 0.5]), distances([0.1] * 4, "few")]))
    assert usual.median(CELL) == pytest.approx(0.3)
    assert (usual.windows(CELL), usual.farther(CELL, 0.35), usual.farther(CELL, None)) == (5, 2, None)
    for known, cell in ((usual, ("few", "jensen_shannon")), (NOTHING_USUAL, CELL)):
        assert (known.limit(cell, 0.01), known.median(cell), known.farther(cell, 0.1), known.windows(cell)) == (
            0.0,
            None,
            None,
            0,
        )


def test_importance_is_a_share_of_that_of_the_features() -> None:
    assert importance_shares({"a": 0.3, "b": 0.1, "c": -0.1, "gone": 5.0}, ["a", "b", "c", "d"]) == pytest.approx(
        {"a": 0.75, "b": 0.25, "c": 0, "d": 0}
    )
    assert importance_shares({}, ["a"]) == {}
