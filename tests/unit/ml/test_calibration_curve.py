"""The calibration curve: no row is lost, equal probabilities share a bin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.calibration_curve import calibration_bins, calibration_curve

ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0]) | st.floats(0, 1)), min_size=1, max_size=80
)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 12))
def test_every_row_is_in_one_bin_and_bins_rise(rows: list[tuple[bool, float]], bins: int) -> None:
    labels, probabilities = np.array([row[0] for row in rows], dtype=int), np.array([row[1] for row in rows])
    curve = calibration_curve(labels, probabilities, bins)
    assert 1 <= len(curve) <= bins
    assert sum(point.rows for point in curve) == len(rows)
    assert sum(point.mean_probability * point.rows for point in curve) == pytest.approx(probabilities.sum())
    assert sum(point.positive_share * point.rows for point in curve) == pytest.approx(labels.sum())
    means = [point.mean_probability for point in curve]
    assert means == sorted(means)
    positions = calibration_bins(probabilities, bins)
    for value in set(probabilities):
        assert len(set(positions[probabilities == value])) == 1


@settings(max_examples=30)
@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[bool, float]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (
        calibration_curve(np.array([row[0] for row in each], dtype=int), np.array([row[1] for row in each]), 5)
        for each in (rows, shuffled)
    )
    assert [point.rows for point in first] == [point.rows for point in second]
    assert [point.positive_share for point in first] == [point.positive_share for point in second]


def test_true_probabilities_lie_on_the_diagonal() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random(20_000)
    curve = calibration_curve((random.random(20_000) < probabilities).astype(int), probabilities, 10)
    assert [point.rows for point in curve] == [2000] * 10
    assert max(abs(point.mean_probability - point.positive_share) for point in curve) < 0.04
