"""The comparison of policies: the oracle is the best of every window, intervals hold the means, and the figure is an image."""

import numpy as np
import pytest
from drifting_streams import evaluation

from mlops_assets.ml.policy_comparison import (
    FIXED,
    ArmSettings,
    build_arms,
    difference_of,
    draw_windows,
    mean_interval,
    run_arms,
    summarise_arms,
)
from mlops_assets.ml.policy_plot import policy_plot
from mlops_assets.ml.prequential import ArmResult

ARMS = build_arms(ArmSettings(window=70, period=28, cooldown=14, maximum_age=180))


def arm(*metrics: float | None) -> ArmResult:
    return ArmResult(metrics=list(metrics), losses=[0.5] * len(metrics))


def test_the_oracle_is_the_best_of_every_window():
    results = {"never": arm(0.7, 0.6, 0.8), "all": arm(0.6, 0.9, 0.8)}
    never, ours, oracle = summarise_arms(results, "roc_auc")
    assert oracle.metric == pytest.approx((0.7 + 0.9 + 0.8) / 3)
    assert (never.regret, ours.regret) == pytest.approx((0.1, 0.1 / 3))
    assert (never.worst, oracle.regret) == (0.6, 0)


def test_of_an_error_the_least_is_the_best():
    results = {"never": arm(3.0, 2.0), "all": arm(2.0, 4.0)}
    never, _, oracle = summarise_arms(results, "mean_absolute_error")
    assert (oracle.metric, never.worst, never.regret) == (2.0, 3.0, 0.5)


def test_a_window_without_the_metric_counts_for_no_policy():
    never, ours, _ = summarise_arms({"never": arm(0.7, None), "all": arm(0.6, 0.9)}, "roc_auc")
    assert (never.metric, ours.metric) == (0.7, 0.6)
    with pytest.raises(ValueError, match="choose longer windows"):
        summarise_arms({"never": arm(None)}, "roc_auc")


def test_windows_that_follow_each_other_are_drawn_together():
    draws = draw_windows(64, seed=0)
    assert draws.shape == (1000, 64)
    assert (np.diff(draws) % 64 == 1).mean() == pytest.approx(0.75, abs=0.02)
    # A run of bad windows is worth less evidence than the same number of scattered ones.
    together, scattered = np.repeat([0.0, 1.0], 32), np.tile([0.0, 1.0], 32)
    widths = [high - low for low, high in (mean_interval(values, draws) for values in (together, scattered))]
    assert widths[0] > 1.5 * widths[1]


def test_the_difference_from_the_best_fixed_policy():
    results = {"never": arm(*[0.7] * 8), "sliding": arm(*[0.75] * 8), "expanding": arm(*[0.72] * 8), "all": arm(*[0.8] * 8)}
    assert difference_of(results, "roc_auc", "all", FIXED)[1:] == pytest.approx((0.05, 0.05, 0.05))


def test_every_policy_runs_and_is_drawn():
    stream = evaluation([0.0] * 6 + [1.5] * 10)
    said: list[str] = []
    results = run_arms(stream, ARMS, said.append)
    assert said == list(ARMS)
    summaries = {summary.policy: summary for summary in summarise_arms(results, "roc_auc")}
    assert all(summary.metric_low <= summary.metric <= summary.metric_high for summary in summaries.values())
    assert summaries["refit"].fits > summaries["refit"].trainings
    assert policy_plot(results, [start for start, _ in stream.windows], "roc_auc").startswith(b"\x89PNG")
