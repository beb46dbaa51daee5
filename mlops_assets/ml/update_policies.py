"""Policies that decide on a day what becomes of the model in service: it is kept, recalibrated, rolled back, or trained again.

Pure: the facts that were known on the day in, a decision with its reason out. `retraining.py` is the rule that looks at reports alone;
these look at the losses of models on the same recent rows, which none of the models was fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, Protocol

from mlops_assets.ml.history import History
from mlops_assets.ml.loss_comparison import LossDifference, WindowLosses
from mlops_assets.ml.retraining import RetrainingPolicy, RetrainingState, WindowResult, decide
from mlops_assets.ml.service_comparison import (
    compare_recalibrated,
    compare_with_previous,
    describe_difference,
    mean_loss,
    rise_of_loss,
)
from mlops_assets.ml.training_forecast import TRAINING_COST, TrainingCosts, forecast_training

Action = Literal["keep", "recalibrate", "roll back", "retrain"]

PLAIN = "plain"
"""The model in service without any recalibration, in `UpdateFacts.windows` and in `UpdateFacts.reference`. The others in
`UpdateFacts.windows` are those of `service_comparison.py`, from the last deployment, recalibration or rollback on."""


@dataclass(frozen=True, kw_only=True)
class UpdateFacts:
    """What is known on `day`, the first of a window.

    `windows` hold the losses of the rows with known labels since the model in service was deployed, in order of time, and `results` its
    reported metric. `ages` hold those of all windows so far by two small models, fitted for the window and for the day of the model then
    in service, each divided by the days between the two, so that their difference is what a day of age costs. `trained_for` is the
    training date, `attempted` the newest date a candidate was evaluated for, deployed or not. `reference` is the loss on the hold-out.
    `new_rows` are those whose labels became known since the last attempt. `refused` counts the last trainings in a row that did not end
    in service, `rolled_back` is the day of the last rollback.
    """

    day: date
    windows: Sequence[WindowLosses]
    ages: Sequence[WindowLosses]
    results: Sequence[WindowResult]
    trained_for: date
    attempted: date
    reference: WindowLosses | None
    window_days: int
    new_rows: int
    refused: int = 0
    rolled_back: date | None = None


@dataclass(frozen=True)
class UpdateDecision:
    """An action, why, and for a training the histories that are tried.

    With `must_gain` the candidate replaces the model in service only if it loses less on its hold-out, beyond chance.
    """

    action: Action
    reason: str
    histories: Sequence[History] = ()
    must_gain: bool = False


class UpdatePolicy(Protocol):
    """A rule from facts to a decision."""

    @property
    def refits(self) -> bool:
        """Whether a model that passed the gates is refitted with its hold-out before it serves."""

    @property
    def gated(self) -> bool:
        """Whether a candidate must not be worse than the model in service on its hold-out. Otherwise it is fitted once and deployed."""

    @property
    def averages(self) -> bool:
        """Whether a candidate is the average of the models of its histories. Otherwise it is the one that loses least on the hold-out."""

    @property
    def forecasts(self) -> bool:
        """Whether it looks at `UpdateFacts.ages`."""

    @property
    def recalibrates(self) -> bool:
        """Whether it looks at the losses of `RECALIBRATED`."""

    def decide(self, facts: UpdateFacts) -> UpdateDecision:
        """Return the decision of `facts.day`."""


@dataclass(frozen=True, kw_only=True)
class NeverPolicy:
    """Keep the first model."""

    refits = gated = averages = recalibrates = forecasts = False

    def decide(self, facts: UpdateFacts) -> UpdateDecision:
        """Return `keep`."""
        return UpdateDecision("keep", "the first model stays")


@dataclass(frozen=True, kw_only=True)
class PeriodicPolicy:
    """Train on `histories` every `days`, whatever happened."""

    days: int
    histories: tuple[History, ...]
    averages: bool = True
    refits: bool = True
    gated: bool = False
    recalibrates: bool = False
    forecasts: bool = False

    def decide(self, facts: UpdateFacts) -> UpdateDecision:
        """Return `retrain` once the model is old enough."""
        age = (facts.day - facts.trained_for).days
        if age < self.days:
            return UpdateDecision("keep", f"the model is {age} days old")
        return UpdateDecision("retrain", f"the model is {age} days old", self.histories)


@dataclass(frozen=True, kw_only=True)
class ReportPolicy:
    """Decide by the rule of `retraining.py`, which is that of the live decision; a training tries `histories`.

    Without `forecasts`, `rolls_back` and `recalibrates` it looks at reports and age alone. After `refused` trainings that did not help it
    asks a person (None: never).
    """

    histories: Sequence[History]
    costs: TrainingCosts | None = None
    minimum_bad_windows: int
    recent_windows: int
    cooldown: int
    maximum_age: int | None
    minimum_new_rows: int
    refused: int | None
    watch: int
    refits: bool = False
    averages: bool = False
    rolls_back: bool = False
    recalibrates: bool = False
    gated: bool = True
    forecasts: bool = False

    def decide(self, facts: UpdateFacts) -> UpdateDecision:
        """Return what that rule does; where it waits or asks, the model is kept."""
        decision = decide(
            RetrainingState(
                day=facts.day,
                windows=facts.results,
                trained_for=facts.trained_for,
                attempted=facts.attempted,
                new_rows=facts.new_rows,
                changed=facts.new_rows > 0,
                running=None,
                losses=facts.windows,
                served_windows=len(facts.results),
                rolled_back=facts.rolled_back,
                refused=facts.refused,
                ages=facts.ages,
                window_days=facts.window_days,
                predictions=sum(int(window.rows.sum()) for window in facts.windows) / max(len(facts.windows), 1),
            ),
            RetrainingPolicy(
                minimum_bad_windows=self.minimum_bad_windows,
                recent_windows=self.recent_windows,
                maximum_drifted_share=1.0,
                trained_before=None if self.maximum_age is None else facts.day - timedelta(days=self.maximum_age),
                attempted_after=facts.day - timedelta(days=self.cooldown),
                minimum_new_rows=self.minimum_new_rows,
                refused=self.refused,
                watch=self.watch,
                rolls_back=self.rolls_back,
                recalibrates=self.recalibrates,
                forecasts=self.forecasts,
                costs=self.costs,
            ),
        )
        match decision.outcome:
            case "retrain":
                return UpdateDecision("retrain", decision.text, self.histories, decision.must_gain)
            case "roll back" | "recalibrate" as action:
                return UpdateDecision(action, decision.text)
            case _:
                return UpdateDecision("keep", decision.text)


@dataclass(frozen=True, kw_only=True)
class LossPolicy:
    """Act on the losses of models on recent matured rows.

    `recalibrates` and `rolls_back` switch these actions on, `forecasts` the training that pays. `histories` are tried at a training after a
    fall or by age, the first one alone otherwise. `training_cost` is what a training may cost: a share of the loss of one window.
    `watch` is for how many windows after its training a model may be rolled back. `cooldown` days pass between trainings, `maximum_age`
    is an age that is a reason by itself, `effect` the least rise of the loss that is a fall, as a share of it.
    """

    histories: Sequence[History]
    cooldown: int
    maximum_age: int | None
    training_cost: float = TRAINING_COST
    watch: int = 6
    effect: float = 0.05
    confidence: float = 0.99
    recalibrates: bool = True
    rolls_back: bool = True
    forecasts: bool = True
    refits: bool = True
    averages: bool = False
    gated: bool = True
    seed: int = 0

    def decide(self, facts: UpdateFacts) -> UpdateDecision:
        """Return the decision: first what undoes a mistake, then what learns, then what bends the scores."""
        watched = (facts.day - facts.trained_for).days <= self.watch * facts.window_days
        if (
            self.rolls_back
            and watched
            and (worse := compare_with_previous(facts.windows, watch=self.watch, confidence=self.confidence, seed=self.seed))
            and worse.is_worse
        ):
            return UpdateDecision("roll back", f"the model before it loses less: {describe_difference(worse)}")
        if (facts.day - facts.attempted).days >= self.cooldown and (decision := self._training(facts)):
            return decision
        if (
            self.recalibrates
            and (bent := compare_recalibrated(facts.windows, confidence=self.confidence, seed=self.seed))
            and bent.is_better
        ):
            return UpdateDecision("recalibrate", f"recalibrated it loses less: {describe_difference(bent)}")
        return UpdateDecision("keep", "nothing that is better beyond chance is known")

    def _training(self, facts: UpdateFacts) -> UpdateDecision | None:
        age = (facts.day - facts.trained_for).days
        if self.maximum_age is not None and age >= self.maximum_age:
            return UpdateDecision("retrain", f"the model is {age} days old", self.histories)
        forecast = forecast_training(
            facts.ages,
            loss=mean_loss(facts.windows, PLAIN),
            window_days=facts.window_days,
            training_cost=self.training_cost,
            seed=self.seed,
        )
        if forecast is not None and forecast.due is not None and age >= forecast.due:
            return UpdateDecision(
                "retrain",
                f"a model that is {age} days younger pays: due from {forecast.due:.0f} days",
                self.histories[:1],
            )
        if (fall := self._fall(facts)) is not None:
            return UpdateDecision("retrain", f"the loss rose beyond chance: {describe_difference(fall)}", self.histories)
        return None

    def _fall(self, facts: UpdateFacts) -> LossDifference | None:
        """Return by how much the model in service loses more than on its hold-out, if it does beyond chance and the effect."""
        if facts.reference is None:
            return None
        return rise_of_loss(facts.windows, facts.reference, PLAIN, effect=self.effect)
