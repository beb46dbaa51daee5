"""Attributions: a model that leans on another feature is seen, days that differ as usual are not."""

import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.attribution import compare_attributions
from mlops_assets.ml.contributions import absolute_contributions, explain_row

FEATURES = ("a", "b", "c")
DAYS = np.arange(700) // 50


def rows(seed: int, count: int = 700, *, spread_of_b: float = 1.0) -> pa.Table:
    """Rows of three features; the days of the first differ a little."""
    random = np.random.default_rng(seed)
    days = 1 + 0.1 * random.normal(size=15)[np.arange(count) // 50]
    return pa.table({"a": random.normal(0, days), "b": random.normal(0, spread_of_b, count), "c": random.normal(0, 1, count)})


def predict(table: pa.Table) -> np.ndarray:
    return 2 * table["a"].to_numpy() + table["b"].to_numpy()


def sizes(table: pa.Table) -> np.ndarray:
    return absolute_contributions(predict, table, rows(0), seed=1)


def test_the_sizes_are_those_of_the_contributions_of_each_row() -> None:
    table, background = rows(1, 50), rows(0).slice(0, 1)
    expected = [
        {
            item.feature: abs(item.contribution)
            for item in explain_row(predict, table.slice(place, 1), background, orders=3, seed=0).contributions
        }
        for place in range(50)
    ]
    measured = absolute_contributions(predict, table, background, seed=1)
    np.testing.assert_allclose(measured, [[row[name] for name in FEATURES] for row in expected], atol=1e-9)


def test_several_outputs_are_averaged() -> None:
    def both(table: pa.Table) -> np.ndarray:
        return np.column_stack([predict(table), -predict(table)])

    np.testing.assert_allclose(absolute_contributions(both, rows(1), rows(0), seed=1), sizes(rows(1)))


def test_a_model_that_leans_on_another_feature_is_seen() -> None:
    first, *others = compare_attributions(
        sizes(rows(2, spread_of_b=4)), DAYS, sizes(rows(3)), features=FEATURES, false_alarms=0.05
    )
    assert (first.feature, first.difference > max(0.05, first.usual_difference)) in [("a", True), ("b", True)]
    by_name = {shift.feature: shift for shift in (first, *others)}
    assert by_name["b"].usual_share == pytest.approx(1 / 3, abs=0.05)
    assert by_name["b"].share == pytest.approx(np.sqrt(17) / (np.sqrt(17) + np.sqrt(8)), abs=0.05)
    assert (by_name["c"].share, by_name["c"].difference) == (0.0, 0.0)
    assert "on the hold-out; days differ by up to" in first.words


def test_usual_days_alert_no_more_often_than_stated() -> None:
    beyond = 0
    for seed in range(40):
        shifts = compare_attributions(
            sizes(rows(100 + seed)), DAYS, sizes(rows(200 + seed)), features=FEATURES, false_alarms=0.05
        )
        beyond += any(shift.difference > shift.usual_difference for shift in shifts)
    assert beyond <= 5
