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
    floors: Mapping[str, float] = {},
) -> dict[tuple[str | None, str], PerformanceRow]:
    found = performance_rows(
        "w",
        metrics=metrics,
        maturity={WHOLE: Maturity(rows, rows, complete), "place = north": Maturity(rows // 2, rows // 2, complete)},
        estimates={(WHOLE, metric): Estimate(estimated, estimated - 0.01, estimated + 0.01) for metric in metrics if estimated},
        realised=realised,
        usual=usual or UsualPerformance(evaluated(1.0), variation, excess={}, leads={}),
        limits=Limits(tolerance=0.15, tolerances=tolerances, false_alarms=0.05, floors=floors, slice_floors={}),
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


def test_what_all_rows_realised_is_excused_by_one_usual_deviation_and_an_estimate_by_what_is_unusual() -> None:
    worse = evaluated(1.5)
    fall = USUAL - float(worse.metrics["roc_auc"] or 0)
    varying = Variation({(WHOLE, "roc_auc"): fall / 2}, windows=25, held_out=2.0)
    realised, north = (rows_of(realised=worse, variation=varying)[name, "roc_auc"] for name in (None, "place = north"))
    assert realised.alert
    assert not north.alert
    assert not rows_of(estimated=USUAL - fall, realised=None, complete=False, variation=varying)[WHOLE_AUC].alert
    wider = Variation({(WHOLE, "roc_auc"): fall}, windows=25, held_out=2.0)
    assert not rows_of(realised=worse, variation=wider)[WHOLE_AUC].alert


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
    usual = UsualPerformance(evaluated(1.5), NO_VARIATION, excess, leads={})
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


WEAK = 3.05
"""The noise of a model with a ROC AUC of 0.68."""


def test_a_window_below_the_floor_of_the_gates_is_bad_whatever_its_version_reached() -> None:
    # The first version was good, its successor was let through just above the floor, and so was its limit let down.
    usual = UsualPerformance(evaluated(WEAK, rows=20_000), NO_VARIATION, excess={}, leads={})
    held_out = float(usual.evaluation.metrics["roc_auc"] or 0)
    below = evaluated(WEAK + 0.5, rows=20_000, seed=1)
    value = float(below.metrics["roc_auc"] or 0)
    assert 0.01 < held_out - value < 0.15 * (1 - held_out)
    floor = value + 0.003
    without, held_to = (rows_of(realised=below, usual=usual, floors=floors)[WHOLE_AUC] for floors in ({}, {"roc_auc": floor}))
    assert (without.alert, held_to.alert) == (False, True)
    assert without.threshold is not None
    assert (held_to.threshold, held_to.floor) == (floor, floor)
    assert without.threshold < value < floor
    # By how much windows differ excuses nothing: the floor is what the team asks of every one.
    varying = replace(usual, variation=Variation({(WHOLE, "roc_auc"): 0.05}, windows=25, held_out=2.0))
    assert rows_of(realised=below, usual=varying, floors={"roc_auc": floor})[WHOLE_AUC].alert
    # A floor that the window reaches says nothing, and slices have floors of their own.
    assert not rows_of(realised=below, usual=usual, floors={"roc_auc": value - 0.001})[WHOLE_AUC].alert
    assert all(
        row.floor is None for (name, _), row in rows_of(realised=below, usual=usual, floors={"roc_auc": floor}).items() if name
    )


def test_where_smaller_is_better_a_floor_is_a_ceiling() -> None:
    usual = UsualPerformance(evaluated(WEAK, rows=20_000), NO_VARIATION, excess={}, leads={})
    worse, log_loss = evaluated(WEAK + 0.5, rows=20_000, seed=1), (None, "log_loss")
    usual_loss = float(usual.evaluation.metrics["log_loss"] or 0)
    ceiling = float(worse.metrics["log_loss"] or 0) - 0.003
    row = rows_of(realised=worse, usual=usual, metrics=("log_loss",), floors={"log_loss": ceiling})[log_loss]
    assert (row.alert, row.floor) == (True, ceiling)
    assert row.threshold is not None
    assert row.threshold < usual_loss + 0.15 * usual_loss
    assert not rows_of(realised=worse, usual=usual, metrics=("log_loss",), floors={"log_loss": ceiling + 0.01})[log_loss].alert


def test_quiet_windows_just_above_a_floor_do_not_alert() -> None:
    # As close to it as the gate lets a candidate be: half of the quiet windows have a value below it.
    usual = UsualPerformance(evaluated(WEAK, rows=6000), NO_VARIATION, excess={}, leads={})
    floor = float(usual.evaluation.metrics["roc_auc"] or 0)
    quiet = [
        rows_of(realised=evaluated(WEAK, rows=600, seed=seed), usual=usual, rows=600, floors={"roc_auc": floor})[WHOLE_AUC]
        for seed in range(1, 41)
    ]
    assert sum(row.realised is not None and row.realised < floor for row in quiet) > 10
    assert sum(row.alert for row in quiet) == 0


def test_a_window_is_held_to_the_best_version_that_leads_on_the_same_rows() -> None:
    usual = UsualPerformance(evaluated(1.0), NO_VARIATION, excess={}, leads={"roc_auc": 0.01})
    led = rows_of(estimated=USUAL - 0.01, realised=None, complete=False, usual=usual)[WHOLE_AUC]
    assert (led.best, led.expected, led.reference) == (USUAL + 0.01, USUAL, USUAL)
    assert led.alert
    assert not rows_of(estimated=USUAL - 0.01, realised=None, complete=False)[WHOLE_AUC].alert
    log_loss = float(evaluated(1.0).metrics["log_loss"] or 0)
    smaller = rows_of(realised=evaluated(1.0), metrics=("log_loss",), usual=replace(usual, leads={"log_loss": 0.01}))
    assert smaller[None, "log_loss"].best == log_loss - 0.01
