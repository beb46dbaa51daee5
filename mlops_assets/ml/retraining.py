"""The rule that decides what becomes of the model in service: its reasons, its obstacles, and the outcome in words.

Pure: dates, numbers, losses and alerts in, a decision out. Where they come from, and who acts on the decision, is none of its business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mlops_assets.ml.loss_comparison import LossDifference, WindowLosses
    from mlops_assets.ml.training_forecast import TrainingCosts, TrainingForecast

_MOST_DOUBLINGS = 6
"""Of the wait after trainings that did not help: beyond it a cooldown of a week is more than a year."""

Outcome = Literal["keep", "recalibrate", "roll back", "retrain", "wait", "ask"]
"""`roll back`: the model before loses less. `retrain`: there is a reason and nothing against it. `ask`: the same, but trainings did not help:
a person is needed. `recalibrate`: the recalibrated model loses less, and nothing is trained. `wait`: there is a reason, and something against
it. `keep`: no reason."""


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """The reported results of one monitoring window and one model version; None where there is no result.

    `estimated` and `realised` are values of `metric`, and `limit` is what they are compared with. `alert` is whether any metric is beyond its
    limit, and `in_words` says which, and how well the model ranks.
    `complete` says that the labels have matured, so that `realised` is the truth. Shares are from 0 to 1. `others` are the alerts of
    the team's monitors that ask for a training, in words.
    """

    start: date
    drifted_share: float | None
    metric: str
    estimated: float | None
    realised: float | None
    limit: float | None
    alert: bool
    complete: bool
    in_words: str = ""
    others: tuple[str, ...] = ()

    @property
    def problem(self) -> str | None:
        """The reason why the window is bad, or None. Drift of features is none: most of it changes nothing that a model would learn."""
        if self.alert and self.in_words:
            return f"{self.start}: {self.in_words}"
        if self.alert:
            value, kind = (self.estimated, "estimated") if self.realised is None else (self.realised, "realised")
            against = "" if self.limit is None else f", limit {self.limit:.3f}"
            measured = "beyond its limit" if value is None else f"{value:.3f}{against}"
            return f"{self.start}: {kind} {self.metric} {measured}"
        if self.others:
            return f"{self.start}: {', '.join(self.others)}"
        return None

    def drift(self, maximum_share: float) -> str | None:
        """Return in words that more features drifted than the share, or None; with all labels what was measured counts alone."""
        if self.complete or self.drifted_share is None or self.drifted_share <= maximum_share:
            return None
        return f"{self.start}: {self.drifted_share:.0%} of the features drifted, limit {maximum_share:.0%}"


@dataclass(frozen=True, kw_only=True)
class RetrainingPolicy:
    """The conditions of a retraining, with durations already turned into dates before the day of the decision.

    `minimum_bad_windows` of the `recent_windows` last ones must be bad. A model trained for `trained_before` or earlier is too old (None:
    none is); a training for a day after `attempted_after` was too recent to be followed by another one, and so is a rollback. After
    `refused` trainings in a row that did not help a person is asked (None: never). The model before is compared for `watch` windows where
    `rolls_back`, and probes tell what a training gains where `forecasts`. With `costs` the forecast gain alone decides when it pays.
    """

    minimum_bad_windows: int
    recent_windows: int
    maximum_drifted_share: float
    trained_before: date | None
    attempted_after: date
    minimum_new_rows: int
    refused: int | None
    watch: int
    rolls_back: bool
    recalibrates: bool
    forecasts: bool
    costs: "TrainingCosts | None" = None

    def is_watching(self, served_windows: int) -> bool:
        """Whether a version may be rolled back after it served in so many windows."""
        return self.rolls_back and served_windows <= self.watch

    def is_old(self, trained_for: date) -> bool:
        """Whether a model trained for this date is too old, whatever its results."""
        return self.trained_before is not None and trained_for <= self.trained_before

    def gives_up(self, refused: int) -> bool:
        """Whether so many candidates in a row that did not help are too many."""
        return self.refused is not None and refused >= self.refused


@dataclass(frozen=True, kw_only=True)
class RetrainingState:
    """The facts on the day of the decision.

    `windows` are those of the version that predicts, in order of time. `trained_for` is its training date, `attempted` the newest
    date for which a candidate was evaluated, deployed or not. `new_rows` are rows whose labels became known since, and `changed` is
    whether the labelled rows of the training window differ from those the attempt was made with. `running` names a running
    training.

    `losses` are those of `service_comparison.py` in the windows that the version predicted, `served_windows` of them by now. `rolled_back` is
    the day of the last rollback, `refused` counts the trainings in a row that did not end as the champion, `refused_recalibrations` those of
    this version. `ages` are the losses of probes, as `training_forecast.py` reads them, of windows of `window_days` and
    about `predictions` predictions.
    """

    day: date
    windows: Sequence[WindowResult]
    trained_for: date
    attempted: date | None
    new_rows: int
    changed: bool
    running: str | None
    losses: "Sequence[WindowLosses]" = ()
    served_windows: int = 0
    rolled_back: date | None = None
    refused: int = 0
    refused_recalibrations: int = 0
    ages: "Sequence[WindowLosses]" = ()
    window_days: int = 7
    predictions: float = 0


@dataclass(frozen=True, kw_only=True)
class RetrainingDecision:
    """The outcome, with what speaks for a change (`reasons`) and what against a training (`obstacles`), and the differences of losses.

    `drifts` are windows in which many features drifted, in words.

    With `must_gain` a trained candidate replaces the version only if it is better beyond chance: the probes do not show that a training helps.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    obstacles: tuple[str, ...]
    bad_windows: int
    drifts: tuple[str, ...] = ()
    rollback: "LossDifference | None" = None
    recalibration: "LossDifference | None" = None
    forecast: "TrainingForecast | None" = None
    must_gain: bool = False

    @property
    def text(self) -> str:
        """The decision in words."""
        if not self.reasons:
            seen = f" ({'; '.join(self.drifts)}: by itself no reason)" if self.drifts else ""
            return f"nothing speaks for another model{seen}"
        reasons = "; ".join(self.reasons)
        return f"{reasons}. Not now: {'; '.join(self.obstacles)}" if self.obstacles else reasons


def decide(state: RetrainingState, policy: RetrainingPolicy) -> RetrainingDecision:
    """Decide by `policy` what follows from `state`: first what undoes a mistake, then what learns, then what bends the predictions."""
    # Not at the head of the module: the definitions load without numpy.
    from mlops_assets.ml.service_comparison import compare_recalibrated, compare_with_previous, describe_difference

    rollback = compare_with_previous(state.losses, watch=policy.watch) if policy.is_watching(state.served_windows) else None
    bends = policy.recalibrates and not policy.gives_up(state.refused_recalibrations)
    recalibration = compare_recalibrated(state.losses) if bends else None
    forecast = _forecast(state, policy) if policy.forecasts else None
    recent = state.windows[-policy.recent_windows :]
    problems = [problem for window in recent if (problem := window.problem)]
    drifts = [drift for window in recent if (drift := window.drift(policy.maximum_drifted_share))]

    def decision(outcome: Outcome, reasons: Sequence[str], obstacles: Sequence[str] = ()) -> RetrainingDecision:
        return RetrainingDecision(
            outcome=outcome,
            reasons=tuple(reasons),
            obstacles=tuple(obstacles),
            bad_windows=len(problems),
            drifts=tuple(drifts),
            rollback=rollback,
            recalibration=recalibration,
            forecast=forecast,
            must_gain=outcome == "retrain"
            and forecast is not None
            and not forecast.helps
            and not policy.is_old(state.trained_for),
        )

    if rollback is not None and rollback.is_worse:
        return decision("roll back", [f"the model before loses less: this one loses {describe_difference(rollback)} more"])
    reasons = list(_reasons(state, policy, problems, forecast))
    obstacles = _obstacles(state, policy) if reasons else []
    if reasons and not obstacles:
        return decision(*_train_or_ask(state, policy, reasons, helps=forecast is not None and forecast.helps))
    if recalibration is not None and recalibration.is_better and state.running is None:
        return decision("recalibrate", [*reasons, f"recalibrated it loses less: {describe_difference(recalibration)}"], obstacles)
    return decision("wait" if reasons else "keep", reasons, obstacles)


def _forecast(state: RetrainingState, policy: RetrainingPolicy) -> "TrainingForecast | None":
    """Return what a training gains; without costs it may cost a tenth of the loss of a window, and must gain a fiftieth."""
    from mlops_assets.ml.service_comparison import CHAMPION, mean_loss
    from mlops_assets.ml.training_forecast import LEAST_GAIN, TRAINING_COST, forecast_training

    loss, share, least_gain = mean_loss(state.losses, CHAMPION), TRAINING_COST, LEAST_GAIN
    if policy.costs is not None and loss and state.predictions:
        share, least_gain = policy.costs.share(loss, state.predictions), 0.0
    return forecast_training(state.ages, loss=loss, window_days=state.window_days, training_cost=share, least_gain=least_gain)


def _reasons(
    state: RetrainingState, policy: RetrainingPolicy, problems: Sequence[str], forecast: "TrainingForecast | None"
) -> Iterator[str]:
    if len(problems) >= policy.minimum_bad_windows:
        yield f"{len(problems)} of the last {policy.recent_windows} windows are bad ({'; '.join(problems)})"
    age = (state.day - state.trained_for).days
    if policy.is_old(state.trained_for):
        yield f"the model was trained for {state.trained_for}, {age} days ago"
    if forecast is not None and forecast.due is not None and age >= forecast.due:
        yield f"younger models lose less, so that a training pays after {forecast.due:.0f} days, and the model is {age} days old"


def _train_or_ask(
    state: RetrainingState, policy: RetrainingPolicy, reasons: Sequence[str], *, helps: bool
) -> tuple[Outcome, list[str]]:
    """Return the outcome where there is a reason and no obstacle.

    After a training that is too old itself, another one is tried, and so it is when probes show that newer history `helps`. Otherwise the
    wait for the next one doubles with each that did not help: who is asked may be away, and the world may have changed.
    """
    is_recent = state.attempted is not None and (policy.trained_before is None or state.attempted > policy.trained_before)
    if helps or not policy.gives_up(state.refused) or not is_recent or state.attempted is None:
        return "retrain", list(reasons)
    cooldown = state.day - policy.attempted_after
    again = state.attempted + cooldown * 2 ** min(state.refused, _MOST_DOUBLINGS)
    if state.day >= again:
        return "retrain", list(reasons)
    tried = (
        f"the last {state.refused} trainings, the newest for {state.attempted}, were refused or rolled back: a person has to decide; "
        f"without one the next is tried from {again} on"
    )
    return "ask", [*reasons, tried]


def _obstacles(state: RetrainingState, policy: RetrainingPolicy) -> list[str]:
    obstacles = []
    if state.running is not None:
        obstacles.append(f"a training is running already ({state.running})")
    if state.attempted is not None and state.attempted > policy.attempted_after:
        obstacles.append(f"the last training was for {state.attempted}, within the cooldown")
    if state.rolled_back is not None and state.rolled_back > policy.attempted_after:
        obstacles.append(f"the last rollback was on {state.rolled_back}, within the cooldown")
    if not state.changed:
        obstacles.append("the labelled rows are those of the last training")
    elif state.new_rows < policy.minimum_new_rows:
        obstacles.append(f"{state.new_rows} labels became known since the last training, {policy.minimum_new_rows} are asked for")
    return obstacles
