"""Comparison of update policies on one stream: the arms, their summaries with intervals, and the oracle that always knew the best arm."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.earlier_rows import without_earlier_rows
from mlops_assets.ml.history import History
from mlops_assets.ml.prequential import ArmResult, Prequential
from mlops_assets.ml.training_forecast import TrainingCosts
from mlops_assets.ml.update_policies import LossPolicy, NeverPolicy, PeriodicPolicy, ReportPolicy, UpdatePolicy
from mlops_assets.schema.metric_names import greater_is_better

_REPLICATES = 1000
_CONFIDENCE = 0.95
FIXED = ("never", "sliding", "expanding")
"""The arms that a policy must not be worse than: the first model, and a training every period on the configured or all history."""


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """What the arms are made of, in days: the configured `window`, the `period` of fixed trainings, and the section `retraining`.

    `histories` are those whose models the training section averages (none: the window), with what they read from before it.
    """

    window: int
    period: int
    cooldown: int
    maximum_age: int | None
    minimum_bad_windows: int = 2
    recent_windows: int = 5
    minimum_new_rows: int = 0
    training_cost: float = 0.1
    refused: int = 2
    watch: int = 6
    rolls_back: bool = True
    recalibrates: bool = True
    forecasts: bool = True
    refits: bool = True
    histories: Sequence[History] = ()
    costs: TrainingCosts | None = None

    @property
    def half_life(self) -> int:
        """The half-life of the weights in days: that of the configured window is its third."""
        return max(self.window // 3, 1)


@dataclass(frozen=True)
class Arm:
    """A policy with the histories of its first model."""

    policy: UpdatePolicy
    first_histories: tuple[History, ...]


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """A policy over all windows. Intervals are of the mean metric, and of its difference from the oracle (`regret`, 0 or more)."""

    policy: str
    metric: float
    metric_low: float
    metric_high: float
    loss: float
    worst: float
    regret: float
    regret_low: float
    regret_high: float
    fits: int
    trainings: int
    refused: int
    rollbacks: int
    recalibrations: int
    seconds: float


def build_arms(settings: ArmSettings) -> dict[str, Arm]:
    """Return every arm by its name: the fixed ones, the live rule with and without losses, each piece with nothing else, and all together."""
    sliding, expanding = History(days=settings.window), History()

    def loss_policy(*histories: History, **pieces: bool) -> LossPolicy:
        switched = {"recalibrates": False, "rolls_back": False, "forecasts": False, "refits": False, **pieces}
        return LossPolicy(
            histories=histories,
            cooldown=settings.cooldown,
            maximum_age=settings.maximum_age,
            training_cost=settings.training_cost,
            **switched,
        )

    def report_policy(*histories: History, refits: bool, **pieces: bool) -> ReportPolicy:
        return ReportPolicy(
            histories=histories,
            costs=settings.costs,
            minimum_bad_windows=settings.minimum_bad_windows,
            recent_windows=settings.recent_windows,
            cooldown=settings.cooldown,
            maximum_age=settings.maximum_age,
            minimum_new_rows=settings.minimum_new_rows,
            refused=settings.refused if pieces else None,
            watch=settings.watch,
            refits=refits,
            **pieces,
        )

    def live_policy(*histories: History, forecasts: bool, averages: bool = True) -> ReportPolicy:
        return report_policy(
            *histories,
            refits=settings.refits,
            averages=averages,
            rolls_back=settings.rolls_back,
            recalibrates=settings.recalibrates,
            forecasts=forecasts,
        )

    averaged = tuple(settings.histories) or (sliding,)
    chosen = (History(half_life=settings.half_life), sliding, expanding)
    within = without_earlier_rows(averaged)
    policies: dict[str, tuple[UpdatePolicy, tuple[History, ...]]] = {
        "never": (NeverPolicy(), (sliding,)),
        "sliding": (PeriodicPolicy(days=settings.period, histories=(sliding,)), (sliding,)),
        "expanding": (PeriodicPolicy(days=settings.period, histories=(expanding,)), (sliding,)),
        "monthly": (PeriodicPolicy(days=settings.period, histories=averaged), averaged),
        "present": (report_policy(sliding, refits=False), (sliding,)),
        "refit": (report_policy(sliding, refits=True), (sliding,)),
        "single": (live_policy(sliding, forecasts=settings.forecasts), (sliding,)),
        "live": (live_policy(*averaged, forecasts=settings.forecasts), averaged),
        "chosen": (live_policy(*averaged, forecasts=settings.forecasts, averages=False), (sliding,)),
        "window": (live_policy(*within, forecasts=settings.forecasts), within),
        "loss": (loss_policy(sliding, refits=True), (sliding,)),
        "forecast": (loss_policy(sliding, refits=True, forecasts=True), (sliding,)),
        "recalibration": (loss_policy(sliding, refits=True, recalibrates=True), (sliding,)),
        "rollback": (loss_policy(sliding, refits=True, rolls_back=True), (sliding,)),
        "all": (loss_policy(*chosen, refits=True, forecasts=True, recalibrates=True, rolls_back=True), (sliding,)),
    }
    return {name: Arm(policy, histories) for name, (policy, histories) in policies.items()}


def run_arms(evaluation: Prequential, arms: Mapping[str, Arm], report: Callable[[str], None]) -> dict[str, ArmResult]:
    """Let each arm run over the windows; `report` hears which one begins."""
    results = {}
    for name, arm in arms.items():
        report(name)
        results[name] = evaluation.run(arm.policy, arm.first_histories)
    return results


def summarise_arms(results: Mapping[str, ArmResult], metric: str, *, seed: int = 0) -> list[ArmSummary]:
    """Return the summary of each arm, and that of the oracle, on the windows that define the metric for all arms."""
    values = np.array([arm.metrics for arm in results.values()], dtype=float)
    defined = ~np.isnan(values).any(axis=0)
    if not defined.any():
        raise ValueError(f"No window defines {metric}: choose longer windows.")
    sign = 1 if greater_is_better(metric) else -1
    best = sign * (sign * values).max(axis=0)
    least = np.min([arm.losses for arm in results.values()], axis=0)
    draws = draw_windows(int(defined.sum()), seed)
    summaries = []
    for row, (name, arm) in zip(values, results.items(), strict=True):
        summaries.append(
            _summary(
                name,
                row[defined],
                float(np.mean(arm.losses)),
                best[defined],
                sign,
                draws,
                counts=(len(arm.fits), arm.count("retrain"), sum(event.refused for event in arm.events)),
                changes=(arm.count("roll back"), arm.count("recalibrate")),
                seconds=arm.seconds,
            )
        )
    oracle = _summary(
        "oracle", best[defined], float(least.mean()), best[defined], sign, draws, counts=(0, 0, 0), changes=(0, 0), seconds=0.0
    )
    return [*summaries, oracle]


def _summary(
    name: str,
    values: np.ndarray,
    loss: float,
    best: np.ndarray,
    sign: int,
    draws: np.ndarray,
    *,
    counts: tuple[int, int, int],
    changes: tuple[int, int],
    seconds: float,
) -> ArmSummary:
    low, high = mean_interval(values, draws)
    behind = sign * (best - values)
    regret_low, regret_high = mean_interval(behind, draws)
    fits, trainings, refused = counts
    rollbacks, recalibrations = changes
    return ArmSummary(
        policy=name,
        metric=float(values.mean()),
        metric_low=low,
        metric_high=high,
        loss=loss,
        worst=float(sign * (sign * values).min()),
        regret=float(behind.mean()),
        regret_low=regret_low,
        regret_high=regret_high,
        fits=fits,
        trainings=trainings,
        refused=refused,
        rollbacks=rollbacks,
        recalibrations=recalibrations,
        seconds=round(seconds, 2),
    )


def draw_windows(windows: int, seed: int) -> np.ndarray:
    """Draw resamples [replicates, windows] of window positions by the circular block bootstrap of Politis and Romano (1992).

    Neighbouring windows are drawn together, the third root of their number at a time, since they share what happened.
    """
    length = max(1, round(windows ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, windows, size=(_REPLICATES, -(-windows // length)))
    drawn = (starts[:, :, None] + np.arange(length)) % windows
    return drawn.reshape(_REPLICATES, -1)[:, :windows]


def mean_interval(values: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Return the interval of the mean of `values` [windows] from the resamples of `draw_windows`."""
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def difference_of(
    results: Mapping[str, ArmResult], metric: str, ours: str, theirs: Sequence[str], *, seed: int = 0
) -> tuple[str, float, float, float]:
    """Return the best arm of `theirs`, and by how much the mean metric of `ours` is better than its, with the interval."""
    sign = 1 if greater_is_better(metric) else -1
    values = {name: np.array(results[name].metrics, dtype=float) for name in (ours, *theirs)}
    best = max(theirs, key=lambda name: float(np.nanmean(sign * values[name])))
    difference = sign * (values[ours] - values[best])
    difference = difference[~np.isnan(difference)]
    return best, float(difference.mean()), *mean_interval(difference, draw_windows(len(difference), seed))
