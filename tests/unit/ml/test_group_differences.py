"""Groups of rows beside the others: a real difference is found with its interval, chance is none."""

import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.bootstrap import number_blocks
from mlops_assets.ml.evaluation import Resampling
from mlops_assets.ml.group_differences import GroupDifference, comparable_metrics, compare_groups
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import metric_names

ROWS, DAYS, METRICS = 2000, 10, ("log_loss", "accuracy", "roc_auc")


def compare(
    noise_of_b: float, *, seed: int = 0, references: dict[str, str] | None = None
) -> dict[tuple[str, str], GroupDifference]:
    """Three wards: `a` and `c` have the same model, that of `b` has more noise."""
    random = np.random.default_rng(seed)
    ward = random.choice(["a", "b", "c"], ROWS, p=[0.5, 0.4, 0.1])
    odds = random.normal(0, 2, ROWS)
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-odds))).astype(int)
    seen = odds + random.normal(0, 1, ROWS) * np.where(ward == "b", noise_of_b, 0)
    rows = WeightedMetrics("binary_classification", labels, 1 / (1 + np.exp(-seen)), (0, 1), 0.5)
    differences = compare_groups(
        rows,
        pa.table({"ward": ward}),
        references=references or {},
        metrics=METRICS,
        minimum_rows=200,
        false_alarms=0.05,
        resampling=Resampling(seed=1, slice_metrics=(), blocks=number_blocks(np.arange(ROWS) % DAYS)),
    )
    return {(difference.group, difference.metric): difference for difference in differences}


def test_a_group_that_is_served_worse_is_so_beyond_chance_by_difference_and_ratio() -> None:
    differences = compare(3.0)
    loss = differences["b", "log_loss"]
    assert loss.value is not None
    assert loss.other_value is not None
    assert loss.difference == pytest.approx(loss.value - loss.other_value)
    assert loss.ratio == pytest.approx(loss.value / loss.other_value)
    assert loss.difference_interval is not None
    assert loss.ratio_interval is not None
    assert 0 < loss.difference_interval.low < loss.difference < loss.difference_interval.high
    assert 1 < loss.ratio_interval.low < loss.ratio < loss.ratio_interval.high
    assert (loss.rows + loss.other_rows, loss.least_loss) == (ROWS, loss.difference_interval.low)
    # Of a metric of which more is better the loss has the other sign.
    accuracy = differences["b", "accuracy"]
    assert accuracy.difference is not None
    assert accuracy.difference_interval is not None
    assert (accuracy.loss, accuracy.least_loss) == (-accuracy.difference, -accuracy.difference_interval.high)
    assert accuracy.error is not None
    assert accuracy.loss > accuracy.chance * accuracy.error
    assert "accuracy" in accuracy.words
    assert "of the others: difference -" in accuracy.words


def test_groups_that_are_served_alike_alert_no_more_often_than_stated() -> None:
    beyond = 0
    for seed in range(40):
        differences = compare(0.0, seed=seed).values()
        beyond += any((other.loss or 0) > other.chance * (other.error or 0) for other in differences)
    # 40 windows of 5 % each.
    assert beyond <= 5


def test_a_reference_is_compared_with_each_other_group_and_small_ones_are_left_out() -> None:
    differences = compare(3.0, references={"ward": "a"})
    assert {group for group, _ in differences} <= {"b", "c"}
    loss = differences["b", "log_loss"]
    assert loss.reference == "a"
    assert loss.rows + loss.other_rows < ROWS
    assert "of ward = a: difference +" in loss.words
    assert compare(3.0, references={"ward": "nobody"}) == {}


def test_metrics_that_fewer_rows_raise_are_not_compared() -> None:
    names = metric_names("binary_classification")
    assert set(names) - set(comparable_metrics(names)) == {"expected_calibration_error"}
