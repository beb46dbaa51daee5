import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from mlops_assets.ml.reference import WHOLE
from mlops_assets.ml.reference_windows import METRIC_SCHEMA, NO_VARIATION, excess_of, variation_between, window_metrics
from mlops_assets.ml.weighted_metrics import WeightedMetrics


def table(values: list[float], error: float, name: str = WHOLE) -> pa.Table:
    rows = [
        {"window": str(number), "slice": name, "metric": "roc_auc", "value": value, "error": error}
        for number, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=METRIC_SCHEMA)


def evaluated(rows: int, seed: int) -> WeightedMetrics:
    """Calibrated probabilities."""
    random = np.random.default_rng(seed)
    scores = random.random(rows)
    return WeightedMetrics("binary_classification", (random.random(rows) < scores).astype(int), scores, (0, 1), 0.5)


def test_windows_differ_by_what_their_sampling_errors_do_not_explain() -> None:
    random = np.random.default_rng(0)
    values = list(0.8 + 0.03 * random.normal(size=300) + 0.02 * random.normal(size=300))
    found = variation_between(table(values, error=0.02), held_out=2.0)
    assert found.between[WHOLE, "roc_auc"] == pytest.approx(0.03, rel=0.15)
    assert found.predicted(WHOLE, "roc_auc") == pytest.approx(found.between[WHOLE, "roc_auc"] * np.sqrt(1.5))
    # A slice varies at least as all rows do.
    assert found.predicted("place = north", "roc_auc") == found.predicted(WHOLE, "roc_auc")
    assert variation_between(table(values, error=0.2), held_out=2.0).between[WHOLE, "roc_auc"] == 0


def test_that_a_model_is_better_on_rows_it_was_fitted_on_is_no_difference_between_windows() -> None:
    random = np.random.default_rng(0)
    fitted, held_out = 0.95 + 0.01 * random.normal(size=18), 0.85 + 0.01 * random.normal(size=2)
    variation = variation_between(table([*fitted, *held_out], error=0.0), held_out=2.0)
    assert variation.between[WHOLE, "roc_auc"] == pytest.approx(0.01, rel=0.3)
    # Windows that differ in the hold-out differ.
    assert variation_between(table([*fitted, 0.7, 0.9], error=0.0), held_out=2.0).between[WHOLE, "roc_auc"] > 0.03


def test_of_few_windows_nothing_is_known() -> None:
    assert variation_between(table([0.7, 0.8, 0.9, 0.8], error=0.01), held_out=1.0) == NO_VARIATION
    few = variation_between(table([0.7, 0.8, 0.9, 0.8, 0.7], error=0.01), held_out=1.0)
    # Fewer windows tell less: the same probability asks for more standard errors.
    assert few.quantile(0.01) > NO_VARIATION.quantile(0.01) == pytest.approx(norm.isf(0.01))


def test_each_metric_of_a_window_has_its_standard_error() -> None:
    rows = window_metrics("2020-01-06", {WHOLE: evaluated(500, 0)}, metrics=("roc_auc", "accuracy"), seed=0)
    assert [(row["window"], row["slice"], row["metric"]) for row in rows] == [
        ("2020-01-06", WHOLE, "roc_auc"),
        ("2020-01-06", WHOLE, "accuracy"),
    ]
    accuracy = rows[1]
    share = float(accuracy["value"])
    assert accuracy["error"] == pytest.approx(np.sqrt(share * (1 - share) / 500), rel=0.2)
    one_class = WeightedMetrics("binary_classification", np.zeros(50, int), np.linspace(0, 1, 50), (0, 1), 0.5)
    assert [row["metric"] for row in window_metrics("w", {WHOLE: one_class}, metrics=("roc_auc", "accuracy"), seed=0)] == [
        "accuracy"
    ]


def test_a_calibration_error_is_greater_on_fewer_rows() -> None:
    reference = evaluated(5000, 0)
    value = reference.values(("expected_calibration_error",))["expected_calibration_error"] or 0.0
    expected = value + excess_of(reference, "expected_calibration_error", 250, seed=0)
    small = [evaluated(250, seed).values(("expected_calibration_error",))["expected_calibration_error"] for seed in range(1, 40)]
    assert expected == pytest.approx(np.mean([error for error in small if error is not None]), rel=0.15)
    assert expected > 2 * value
    assert excess_of(reference, "roc_auc", 250, seed=0) == 0
    assert excess_of(reference, "expected_calibration_error", 0, seed=0) == 0
