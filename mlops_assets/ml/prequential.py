"""Prequential evaluation of update policies: each window is predicted by the model in service, then its labels become known with their delay.

Days are the blocks of the losses. A window of fewer than five days, such as a yearly survey, has groups of rows instead.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np

from mlops_assets.ml.earlier_rows import compare_earlier_rows, without_earlier_rows
from mlops_assets.ml.history import History
from mlops_assets.ml.loss_comparison import WindowLosses, compare_losses, row_blocks
from mlops_assets.ml.recalibration_methods import RECALIBRATION_WINDOWS
from mlops_assets.ml.retraining import WindowResult
from mlops_assets.ml.service_comparison import CHAMPION, PREVIOUS, RECALIBRATED, fit_recent
from mlops_assets.ml.shared_fits import FittedPredictions, Models, Stream
from mlops_assets.ml.training_forecast import OLDER, YOUNGER
from mlops_assets.ml.update_policies import (
    PLAIN,
    Action,
    UpdateDecision,
    UpdateFacts,
    UpdatePolicy,
)
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import greater_is_better

_CANDIDATE = "candidate"


@dataclass(frozen=True)
class Service:
    """A model in service from `since` on: its histories, the day of its fit, the training date, and what it predicts with its recalibration.

    Of several histories it is the average. `reference` is what the fit that the gates saw lost on its hold-out.
    """

    histories: tuple[History, ...]
    fitted_for: date
    trained_for: date
    since: date
    served: np.ndarray
    losses: np.ndarray
    reference: WindowLosses | None = None
    reference_metric: float | None = None


@dataclass(frozen=True)
class UpdateEvent:
    """Something that a policy did: on which day, what and why. `refused` is a training whose candidates the gates refused."""

    day: date
    action: Action
    reason: str
    refused: bool = False


@dataclass
class ArmResult:
    """A policy over all windows: its metric and mean loss by window (None where not defined), its fits and events."""

    metrics: list[float | None] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    events: list[UpdateEvent] = field(default_factory=list)
    fits: set[tuple[History, date]] = field(default_factory=set)
    seconds: float = 0.0

    def count(self, action: Action) -> int:
        """Return how often the policy did `action`."""
        return sum(event.action == action and not event.refused for event in self.events)


def equal_windows(stream: Stream, first: date, days: int) -> list[tuple[date, date]]:
    """Return windows of `days` days from `first` on; what is left at the end is one if it is at least half as long."""
    end = stream.days.max().astype(object) + timedelta(days=1)
    starts = [first + timedelta(days=number) for number in range(0, (end - first).days - days // 2, days)]
    return [(start, min(start + timedelta(days=days), end)) for start in starts]


class Prequential:
    """The windows of one stream, from their first days to the days after their last. A window without rows is left out."""

    def __init__(self, models: Models, *, windows: Sequence[tuple[date, date]], holdout_days: int, half_life: int, metric: str):
        self._models, self._stream = models, models.stream
        self._holdout_days, self._metric = holdout_days, metric
        # Recent rows count most: what changed since then shows soonest.
        self._probed = History(half_life=half_life)
        self.loss_metric = "mean_absolute_error" if self._stream.problem == "regression" else "log_loss"
        positions = {start: np.flatnonzero(self._between(start, end)) for start, end in windows}
        self._positions = {start: rows for start, rows in positions.items() if len(rows)}
        self.windows = [window for window in windows if window[0] in self._positions]
        self._window_days = round(float(np.median([(end - start).days for start, end in windows])))
        self._bent: dict[tuple[tuple[History, ...], date, date], np.ndarray | None] = {}

    def run(self, policy: UpdatePolicy, first_histories: Sequence[History]) -> ArmResult:
        """Let `policy` decide at the begin of each window, and evaluate what predicts in it: at first the average of `first_histories`."""
        arm, began = ArmResult(), time.process_time()
        day = self.windows[0][0]
        service = self._first(arm, policy, tuple(first_histories), day)
        previous: Service | None = None
        attempts = [day]
        ages: list[tuple[date, FittedPredictions, FittedPredictions, int]] = []
        for start, _ in self.windows:
            if start > day:
                decision = policy.decide(self._facts(policy, service, previous, ages, attempts, arm.events, start))
                if decision.action == "retrain":
                    attempts.append(start)
                    trained = self._train(arm, policy, start, decision, service)
                    arm.events.append(UpdateEvent(start, "retrain", decision.reason, refused=trained is None))
                    if trained is not None:
                        service, previous = trained, service
                elif decision.action == "roll back" and previous is not None:
                    arm.events.append(UpdateEvent(start, "roll back", decision.reason))
                    service, previous = replace(previous, since=start), None
                elif decision.action == "recalibrate" and (bent := self._recalibrate(service, start)) is not None:
                    arm.events.append(UpdateEvent(start, "recalibrate", decision.reason))
                    previous, service = service, replace(service, since=start, served=bent, losses=self._models.losses(bent))
            if policy.forecasts:
                ages.append(self._aged(start, service))
            rows = self._positions[start]
            arm.metrics.append(self._measure(service.served, rows))
            arm.losses.append(self._measure(service.served, rows, self.loss_metric) or 0.0)
        arm.seconds = time.process_time() - began
        return arm

    def _train(
        self, arm: ArmResult, policy: UpdatePolicy, day: date, decision: UpdateDecision, service: Service
    ) -> Service | None:
        """Fit the candidate, and let the gate see it on the hold-out; None when it is refused."""
        if not policy.gated:
            return self._service(arm, tuple(decision.histories), day, day)
        holdout = day - timedelta(days=self._holdout_days)
        best = self._helpful(arm, self._choose(arm, policy, decision.histories, day), day)
        seen = self._fit(arm, best, holdout)
        own = self._known(max(holdout, service.fitted_for), day, day)
        shared = WindowLosses.from_rows({_CANDIDATE: seen.losses[own], CHAMPION: service.losses[own]}, self._blocks(own))
        difference = compare_losses([shared], _CANDIDATE, CHAMPION)
        gains = difference is not None and difference.is_better
        loses = difference is not None and difference.is_worse
        if loses or (decision.must_gain and not gains):
            return None
        return self._accepted(arm, policy, best, day)

    def _first(self, arm: ArmResult, policy: UpdatePolicy, histories: tuple[History, ...], day: date) -> Service:
        """The first model, which replaces none."""
        if not policy.gated:
            return self._service(arm, histories, day, day)
        return self._accepted(arm, policy, self._helpful(arm, histories, day), day)

    def _accepted(self, arm: ArmResult, policy: UpdatePolicy, histories: tuple[History, ...], day: date) -> Service:
        """A candidate that passed the gates, refitted if the policy does, with what it had on its hold-out."""
        holdout = day - timedelta(days=self._holdout_days)
        known, seen = self._known(holdout, day, day), self._fit(arm, histories, holdout)
        reference = WindowLosses.from_rows({PLAIN: seen.losses[known]}, self._blocks(known))
        trained = self._service(arm, histories, day if policy.refits else holdout, day)
        return replace(trained, reference=reference, reference_metric=self._measure(seen.predictions, known))

    def _choose(self, arm: ArmResult, policy: UpdatePolicy, histories: Sequence[History], day: date) -> tuple[History, ...]:
        """All histories, whose average is the candidate, or the one that loses least on the hold-out."""
        if policy.averages or len(histories) == 1:
            return tuple(histories)
        holdout = day - timedelta(days=self._holdout_days)
        known = self._known(holdout, day, day)
        return (min(histories, key=lambda history: float(self._fit(arm, (history,), holdout).losses[known].sum())),)

    def _helpful(self, arm: ArmResult, histories: tuple[History, ...], day: date) -> tuple[History, ...]:
        """The histories, without the rows from before the window where these make the average worse on the hold-out, beyond chance."""
        alone = without_earlier_rows(histories)
        if alone == histories:
            return histories
        holdout = day - timedelta(days=self._holdout_days)
        known = self._known(holdout, day, day)
        difference = compare_earlier_rows(self._models, histories, holdout, known, self._blocks(known))
        arm.fits.update((history, holdout) for history in (*histories, *alone))
        return alone if difference is not None and difference.is_worse else histories

    def _fit(self, arm: ArmResult, histories: tuple[History, ...], day: date) -> FittedPredictions:
        arm.fits.update((history, day) for history in histories)
        return self._models.average(histories, day)

    def _service(self, arm: ArmResult, histories: tuple[History, ...], fitted_for: date, day: date) -> Service:
        fitted = self._fit(arm, histories, fitted_for)
        return Service(histories, fitted_for, day, day, fitted.predictions, fitted.losses)

    def _aged(self, start: date, service: Service) -> tuple[date, FittedPredictions, FittedPredictions, int]:
        """A window with two probes, fitted for it and for its model in service, at least a hold-out earlier, and the days between."""
        earlier = min(service.fitted_for, start - timedelta(days=self._holdout_days))
        younger, older = (self._models.probe(self._probed, day) for day in (start, earlier))
        return start, younger, older, (start - earlier).days

    def _facts(
        self,
        policy: UpdatePolicy,
        service: Service,
        previous: Service | None,
        ages: Sequence[tuple[date, FittedPredictions, FittedPredictions, int]],
        attempts: Sequence[date],
        events: Sequence[UpdateEvent],
        day: date,
    ) -> UpdateFacts:
        past = [start for start, _ in self.windows if service.trained_for <= start < day]
        return UpdateFacts(
            day=day,
            windows=[losses for start in past if len((losses := self._losses(policy, service, previous, start, day)).rows)],
            ages=[losses for pair in ages if len((losses := self._age_losses(*pair, day)).rows)],
            results=[self._result(service, start, day) for start in past if start >= service.since],
            trained_for=service.trained_for,
            attempted=attempts[-1],
            reference=service.reference,
            window_days=self._window_days,
            new_rows=int(((self._stream.known <= np.datetime64(day)) & (self._stream.known > np.datetime64(attempts[-1]))).sum()),
            refused=sum(attempt > service.trained_for for attempt in attempts),
            rolled_back=max((event.day for event in events if event.action == "roll back"), default=None),
        )

    def _losses(self, policy: UpdatePolicy, service: Service, previous: Service | None, start: date, day: date) -> WindowLosses:
        """The losses of one window by the models that a policy compares, of the rows whose label is known on `day`."""
        rows = self._positions[start]
        rows = rows[self._stream.known[rows] <= np.datetime64(day)]
        losses = {PLAIN: self._models.average(service.histories, service.fitted_for).losses}
        if start >= service.since:
            losses[CHAMPION] = service.losses
            if previous is not None:
                losses[PREVIOUS] = previous.losses
            if policy.recalibrates and (bent := self._recalibrate(service, start)) is not None:
                losses[RECALIBRATED] = self._models.losses(bent)
        return WindowLosses.from_rows({name: values[rows] for name, values in losses.items()}, self._blocks(rows))

    def _age_losses(
        self, start: date, younger: FittedPredictions, older: FittedPredictions, days: int, day: date
    ) -> WindowLosses:
        """The losses of one window by a model and an older one, divided by the days between them."""
        rows = self._positions[start]
        rows = rows[self._stream.known[rows] <= np.datetime64(day)]
        losses = {YOUNGER: younger.losses[rows] / days, OLDER: older.losses[rows] / days}
        return WindowLosses.from_rows(losses, self._blocks(rows))

    def _result(self, service: Service, start: date, day: date) -> WindowResult:
        rows = self._positions[start]
        complete = bool((self._stream.known[rows] <= np.datetime64(day)).all())
        realised = self._measure(service.served, rows) if complete else None
        limit = service.reference_metric
        if limit is not None:
            limit *= 0.95 if greater_is_better(self._metric) else 1.05
        alert = (
            realised is not None
            and limit is not None
            and (realised < limit if greater_is_better(self._metric) else realised > limit)
        )
        return WindowResult(
            start=start,
            drifted_share=None,
            metric=self._metric,
            estimated=None,
            realised=realised,
            limit=limit,
            alert=alert,
            complete=complete,
        )

    def _recalibrate(self, service: Service, day: date) -> np.ndarray | None:
        """What the model predicts once it is recalibrated on `day`, or None where its labels do not allow it."""
        identity = (service.histories, service.fitted_for, day)
        if identity not in self._bent:
            first = max(service.fitted_for, day - timedelta(days=RECALIBRATION_WINDOWS * self._window_days))
            rows = self._known(first, day, day)
            predictions = self._models.average(service.histories, service.fitted_for).predictions
            fitted, bent = fit_recent(self._stream.problem, predictions[rows], self._stream.labels[rows]), None
            if fitted is not None:
                bent = np.full(predictions.shape, np.nan)
                later = np.flatnonzero(self._stream.days >= np.datetime64(day))
                bent[later] = fitted.apply(predictions[later])
            self._bent[identity] = bent
        return self._bent[identity]

    def _measure(self, predictions: np.ndarray, rows: np.ndarray, metric: str | None = None) -> float | None:
        if not len(rows):
            return None
        evaluated = WeightedMetrics(
            self._stream.problem,
            self._labels_of(rows),
            predictions[rows].astype(np.float64),
            tuple(self._stream.classes),
            0.5,
        )
        name = metric or self._metric
        return evaluated.values((name,))[name]

    def _labels_of(self, rows: np.ndarray) -> np.ndarray:
        labels = self._stream.labels[rows]
        if self._stream.problem == "multiclass_classification":
            return np.asarray(self._stream.classes)[labels]
        return labels

    def _blocks(self, rows: np.ndarray) -> np.ndarray:
        return row_blocks(self._stream.days[rows].astype(int), rows)

    def _between(self, start: date, end: date) -> np.ndarray:
        return (self._stream.days >= np.datetime64(start)) & (self._stream.days < np.datetime64(end))

    def _known(self, start: date, end: date, day: date) -> np.ndarray:
        return np.flatnonzero(self._between(start, end) & (self._stream.known <= np.datetime64(day)))
