from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa

from mlops_assets.ml.evaluation import Evaluation, Resampling, evaluate
from mlops_assets.ml.performance import Limits, Maturity, UsualPerformance, estimation_error, performance_rows
from mlops_assets.ml.performance_estimation import Estimate
from mlops_assets.ml.reference import WHOLE
from mlops_assets.ml.reference_windows import NO_VARIATION, Variation, excess_of
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import metric_names

METRICS = metric_names("binary_classification")


@cache
def scored(noise: float, rows: int, seed: int, sharpness: float) -> WeightedMetrics:
    """A binary model whose score has `noise`. With another `sharpness` than 1 it ranks as well and is not calibrated."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    logits = 2 * (labels * 2 - 1 + noise * random.normal(size=rows)) / noise**2
    return WeightedMetrics("binary_classification", labels, 1 / (1 + np.exp(-sharpness * logits)), (0, 1), 0.5)


@cache
def evaluated(noise: float, rows: int = 3000, seed: int = 0, sharpness: float = 1.0) -> Evaluation:
    """The model of `scored`, in two slices."""
    predicted = scored(noise, rows, seed, sharpness)
    labels = predicted.labels
    return evaluate(
        problem="binary_classification",
        metrics=METRICS,
        labels=labels,
        predictions=predicted.predictions,
        training_labels=labels,
        classes=(0, 1),
        threshold=0.5,
        slices=pa.table({"place": np.random.default_rng(seed + 1000).choice(["north", "south"], rows)}),
        minimum_slice_rows=200,
        resampling=Resampling(seed=0, slice_metrics=METRICS),
    )


def rows_of(
    *,
    realised: Evaluation | None,
    estimated: float = 0.0,
    complete: bool = True,
    metrics: tuple[str, ...] = ("roc_auc",),
    tolerances: Mapping[str, float] = {},
    variation: Variation = NO_VARIATION,
    usual: UsualPerformance | None = None,
    rows: int = 3000,
) -> dict[tuple[str | None, str], PerformanceRow]:
    found = performance_rows(
        "w",
        metrics=metrics,
        maturity={WHOLE: Maturity(rows, rows, complete), "place = north": Maturity(rows // 2, rows // 2, complete)},
        estimates={(WHOLE, metric): Estimate(estimated, estimated - 0.01, estimated + 0.01) for metric in metrics if estimated},
        realised=realised,
        usual=usual or UsualPerformance(evaluated(1.0), variation, excess={}),
        limits=Limits(tolerance=0.15, tolerances=tolerances, false_alarms=0.05),
    )
    return {(row.slice, row.metric): row for row in found}


def alerts(rows: Mapping[tuple[str | None, str], PerformanceRow]) -> set[str]:
    return {metric for (name, metric), row in rows.items() if row.alert and name is None}


WHOLE_AUC = (None, "roc_auc")
USUAL = float(evaluated(1.0).metrics["roc_auc"] or 0)


def test_until_a_window_is_complete_the_estimate_decides() -> None:
    partial = rows_of(estimated=USUAL, realised=evaluated(3.0), complete=False)[WHOLE_AUC]
    assert (partial.alert, partial.complete) == (False, False)
    assert partial.realised is not None
    assert rows_of(estimated=USUAL - 0.1, realised=None, complete=False)[WHOLE_AUC].alert
    assert not rows_of(estimated=USUAL - 0.1, realised=evaluated(1.0))[WHOLE_AUC].alert
    assert rows_of(estimated=USUAL, realised=evaluated(3.0))[WHOLE_AUC].alert


def test_a_change_that_does_not_matter_or_that_chance_explains_is_no_alert() -> None:
    # A ROC AUC of 0.92 may lose 15 % of its distance from 1.
    small = rows_of(estimated=USUAL - 0.01, realised=None, complete=False)[WHOLE_AUC]
    assert small.effect is not None
    assert abs(small.effect - 0.15 * (1 - USUAL)) < 1e-9
    assert not small.alert
    larger = USUAL - 0.025
    assert rows_of(estimated=larger, realised=None, complete=False)[WHOLE_AUC].alert
    assert not rows_of(estimated=larger, realised=None, complete=False, tolerances={"roc_auc": 0.05})[WHOLE_AUC].alert
    # The hold-out is a sample too.
    chance = rows_of(estimated=USUAL - 0.009, realised=None, complete=False, tolerances={"roc_auc": 0.001})[WHOLE_AUC]
    assert not chance.alert
    assert chance.threshold is not None
    assert chance.threshold < USUAL - 0.009


def test_a_change_as_large_as_those_between_the_windows_before_is_no_alert() -> None:
    varying = Variation({(WHOLE, "roc_auc"): 0.05}, windows=25, held_out=2.0)
    assert rows_of(estimated=USUAL - 0.1, realised=None, complete=False)[WHOLE_AUC].alert
    assert not rows_of(estimated=USUAL - 0.1, realised=None, complete=False, variation=varying)[WHOLE_AUC].alert
    assert rows_of(estimated=USUAL - 0.3, realised=None, complete=False, variation=varying)[WHOLE_AUC].alert


def test_where_smaller_is_better_worse_is_greater() -> None:
    usual, log_loss = float(evaluated(1.0).metrics["log_loss"] or 0), (None, "log_loss")
    worse = rows_of(estimated=usual + 0.1, realised=None, complete=False, metrics=("log_loss",))[log_loss]
    assert worse.threshold is not None
    assert worse.threshold > usual
    assert worse.alert
    assert not rows_of(estimated=usual - 0.1, realised=None, complete=False, metrics=("log_loss",))[log_loss].alert


def test_a_model_that_ranks_as_ever_and_is_no_longer_calibrated_alerts_by_calibration_and_loss() -> None:
    found = rows_of(realised=evaluated(1.0, sharpness=6.0), metrics=METRICS)
    assert alerts(found) == {"expected_calibration_error", "log_loss", "brier_score"}
    assert not alerts(rows_of(realised=evaluated(1.0, seed=1), metrics=METRICS))


def test_slices_have_their_own_reference_and_interval() -> None:
    north = rows_of(realised=evaluated(3.0))["place = north", "roc_auc"]
    assert north.reference != USUAL
    assert north.realised_lower is not None
    assert north.realised_upper is not None
    assert north.realised is not None
    assert north.realised_lower < north.realised < north.realised_upper
    assert north.alert


def test_quiet_windows_and_their_slices_do_not_alert() -> None:
    calibration, rows = "expected_calibration_error", 600
    excess = {
        (name, calibration, count): excess_of(scored(1.5, 3000, 0, 1.0), calibration, count, seed=0)
        for name, count in ((WHOLE, rows), ("place = north", rows // 2))
    }
    usual = UsualPerformance(evaluated(1.5), NO_VARIATION, excess)
    quiet = [
        rows_of(realised=evaluated(1.5, rows=rows, seed=seed), usual=usual, metrics=METRICS, rows=rows) for seed in range(1, 31)
    ]
    assert sum(row.alert for rows in quiet for row in rows.values()) == 0


def test_an_estimate_that_missed_is_named_when_the_window_is_complete() -> None:
    row = rows_of(estimated=USUAL, realised=evaluated(3.0))[WHOLE_AUC]
    assert row.realised is not None
    error = estimation_error(row)
    assert error is not None
    assert error == row.realised - USUAL
    assert estimation_error(replace(row, effect=0.9)) is None
    assert estimation_error(replace(row, complete=False)) is None
    assert estimation_error(replace(row, realised=USUAL + 0.001)) is None
