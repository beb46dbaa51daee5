"""The rule that decides whether a model is trained again: its reasons, its obstacles, and the outcome in words.

Pure: dates, numbers and alerts in, a decision out. Where they come from, and who acts on the decision, is none of its business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

Outcome = Literal["retrain", "wait", "keep"]
"""`retrain`: there is a reason and nothing against it. `wait`: there is a reason, and something against it. `keep`: no reason."""


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

    def problem(self, maximum_drifted_share: float) -> str | None:
        """Return the reason why the window is bad, or None.

        Drift counts until the labels have matured: it puts an estimate in doubt, and says nothing against a measurement.
        """
        if self.alert and self.in_words:
            return f"{self.start}: {self.in_words}"
        if self.alert:
            value, kind = (self.estimated, "estimated") if self.realised is None else (self.realised, "realised")
            against = "" if self.limit is None else f", limit {self.limit:.3f}"
            measured = "beyond its limit" if value is None else f"{value:.3f}{against}"
            return f"{self.start}: {kind} {self.metric} {measured}"
        if self.others:
            return f"{self.start}: {', '.join(self.others)}"
        if not self.complete and self.drifted_share is not None and self.drifted_share > maximum_drifted_share:
            return f"{self.start}: {self.drifted_share:.0%} of the features drifted, limit {maximum_drifted_share:.0%}"
        return None


@dataclass(frozen=True, kw_only=True)
class RetrainingPolicy:
    """The conditions of a retraining, with durations already turned into dates before the day of the decision.

    `minimum_bad_windows` of the `recent_windows` last ones must be bad. A model trained for `trained_before` or earlier is too old (None:
    none is); a training for a day after `attempted_after` was too recent to be followed by another one.
    """

    minimum_bad_windows: int
    recent_windows: int
    maximum_drifted_share: float
    trained_before: date | None
    attempted_after: date
    minimum_new_rows: int


@dataclass(frozen=True, kw_only=True)
class RetrainingState:
    """The facts on the day of the decision.

    `windows` are those of the version that predicts, in order of time. `trained_for` is its training date, `attempted` the newest
    date for which a candidate was evaluated, deployed or not. `new_rows` are rows whose labels became known since, and `changed` is
    whether the labelled rows of the training window differ from those the attempt was made with. `running` names a running
    training.
    """

    day: date
    windows: Sequence[WindowResult]
    trained_for: date
    attempted: date | None
    new_rows: int
    changed: bool
    running: str | None


@dataclass(frozen=True)
class RetrainingDecision:
    """The outcome, with what speaks for a training (`reasons`) and what against it (`obstacles`)."""

    outcome: Outcome
    reasons: tuple[str, ...]
    obstacles: tuple[str, ...]
    bad_windows: int

    @property
    def text(self) -> str:
        """The decision in words."""
        if not self.reasons:
            return "nothing speaks for another training"
        reasons = "; ".join(self.reasons)
        return f"{reasons}. Not now: {'; '.join(self.obstacles)}" if self.obstacles else reasons


def decide(state: RetrainingState, policy: RetrainingPolicy) -> RetrainingDecision:
    """Decide by `policy` what follows from `state`."""
    problems = [
        problem for window in state.windows[-policy.recent_windows :] if (problem := window.problem(policy.maximum_drifted_share))
    ]
    reasons = []
    if len(problems) >= policy.minimum_bad_windows:
        reasons.append(f"{len(problems)} of the last {policy.recent_windows} windows are bad ({'; '.join(problems)})")
    if policy.trained_before is not None and state.trained_for <= policy.trained_before:
        reasons.append(f"the model was trained for {state.trained_for}, {(state.day - state.trained_for).days} days ago")
    obstacles = list(_obstacles(state, policy)) if reasons else []
    outcome: Outcome = "keep" if not reasons else "wait" if obstacles else "retrain"
    return RetrainingDecision(outcome=outcome, reasons=tuple(reasons), obstacles=tuple(obstacles), bad_windows=len(problems))


def _obstacles(state: RetrainingState, policy: RetrainingPolicy) -> list[str]:
    obstacles = []
    if state.running is not None:
        obstacles.append(f"a training is running already ({state.running})")
    if state.attempted is not None and state.attempted > policy.attempted_after:
        obstacles.append(f"the last training was for {state.attempted}, within the cooldown")
    if not state.changed:
        obstacles.append("the labelled rows are those of the last training")
    elif state.new_rows < policy.minimum_new_rows:
        obstacles.append(f"{state.new_rows} labels became known since the last training, {policy.minimum_new_rows} are asked for")
    return obstacles
