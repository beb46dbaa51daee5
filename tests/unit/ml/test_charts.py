import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.charts import categorical_distribution, number_text, numeric_distribution, trend

NUMBERS = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=30).map(np.array)


@given(NUMBERS, NUMBERS)
def test_histograms_hold_every_known_value(reference: np.ndarray, window: np.ndarray) -> None:
    chart = numeric_distribution("x", reference.astype(float), window.astype(float), 300, 100)
    for values, shares in (
        (reference, [bar.reference_share for bar in chart.bars]),
        (window, [bar.window_share for bar in chart.bars]),
    ):
        assert sum(shares) == pytest.approx(1.0 if np.isfinite(values.astype(float)).any() else 0.0)
    assert all(0 <= bar.reference_height <= 100 and 0 <= bar.window_height <= 100 for bar in chart.bars)


def test_categories_are_the_most_frequent_and_the_rest() -> None:
    reference = np.array([f"v{number:02}" for number in range(20)] + ["big"] * 30 + [""] * 10, dtype=object)
    chart = categorical_distribution("c", reference, np.array(["big", "new"], dtype=object), 300, 100)
    labels = [bar.label for bar in chart.bars]
    assert labels[:3] == ["big", "new", "(missing)"]
    assert labels[-1] == "13 others"
    assert sum(bar.reference_share for bar in chart.bars) == pytest.approx(1)
    assert sum(bar.window_share for bar in chart.bars) == pytest.approx(1)


def test_a_trend_leaves_a_gap_where_there_is_no_value() -> None:
    line = trend(
        values=[0.1, None, 0.3, 0.2],
        labels=["a", "b", "c", "d"],
        alerts=[False, False, True, False],
        threshold=0.2,
        from_zero=True,
        width=100,
        height=30,
    )
    assert [point[2:] for point in line.points] == [("a: 0.1", False), ("c: 0.3", True), ("d: 0.2", False)]
    assert len(line.segments) == 1
    assert line.threshold_y == line.points[2][1]
    assert line.points[1][1] < line.points[2][1] < line.points[0][1]


def test_numbers_are_readable() -> None:
    assert [number_text(value) for value in (0, 0.123456, 1035.4, 12345.6, 1e-5, 2.5e8)] == [
        "0",
        "0.1235",
        "1,035",
        "12,346",
        "1.00e-05",
        "2.50e+08",
    ]
