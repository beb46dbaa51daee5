"""`mlops replay`: real time passes over historical data on the running stack, a step of days at a time.

Each step launches the runs that follow the arrival of its days: data with features and predictions, outcomes, reports with the
retraining decision. The decision is then acted on by the retraining sensor of the daemon, as it is on any other day, and the step
waits for the training, the recalibration or the rollback. Automation conditions would launch the same runs, each some ticks of the daemon later.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any

from mlops_assets.clients.champion import registered_champion
from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.components.stages import stages_of
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import (
    DRIFT_REPORT,
    OUTCOMES,
    PERFORMANCE_REPORT,
    PREDICTIONS,
    RETRAINING_DECISION,
    TRAINING_DATASET,
)
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.ml.retraining import Outcome
from mlops_assets.monitoring.retraining_sensor import DECISION, DECISION_TAG, FOLLOWED, OUTCOME, sensor_name
from mlops_assets.operations.automation import switched_on
from mlops_assets.operations.partition_windows import PartitionCalendar, PartitionWindow
from mlops_assets.operations.query import run_query
from mlops_assets.operations.replay_faults import Fault
from mlops_assets.operations.replay_plan import Period, ReplayPlan
from mlops_assets.operations.run_plan import available_partitions, raw_tables
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.operations.stage_runs import StageRun, StageRunResult, data_assets, data_runs
from mlops_assets.schema.duration import add_duration, subtract_duration

RUN_NAMES: Mapping[Outcome, str] = {"retrain": "training", "recalibrate": "recalibration", "roll back": "rollback"}
_SENSOR_SECONDS = 180
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class FollowingRun:
    """A run that followed a decision of this `outcome`, and why it failed or its candidate was refused (empty: a version was deployed)."""

    outcome: Outcome
    run_url: str
    seconds: float
    problems: tuple[str, ...]


@dataclass(frozen=True)
class BlockedDelivery:
    """A faulty delivery: the fault in words, and what stopped it (empty: nothing did)."""

    fault: str
    problems: tuple[str, ...]


@dataclass
class ReplayStep:
    """What became of one step: its runs, the monitoring windows that ended in it, the run that followed, the champion after it.

    `stopped` tells of a fault that was injected, and repaired before the rest of the step.
    """

    period: Period
    stopped: BlockedDelivery | None = None
    stages: list[StageRunResult] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)
    followed_by: FollowingRun | None = None
    champion: int | None = None
    seconds: float = 0.0


class Replay:
    """The steps of one plan on one running stack. Raises StackError when the solution or its data are not there."""

    def __init__(self, settings: Settings, plan: ReplayPlan, fault: Fault | None):
        self.settings = settings
        self._fault = fault
        self.client = DagsterClient.from_settings(settings)
        assets = self.client.assets()
        self._name = plan.solution
        solution = declared_solution(plan.solution)
        if not solution.spine.has_time:
            raise StackError(
                f"The table of {plan.solution} has no time: there is nothing to replay.", remedy=f"mlops run {plan.solution}"
            )
        self._label_delay = solution.monitoring.performance.label_delay
        if patiently(partial(registered_champion, settings, plan.solution)) is None:
            raise StackError(f"{plan.solution} has no champion that could predict.", remedy=f"mlops run {plan.solution}")
        self._calendar = PartitionCalendar(self.client)
        self._data = tuple(sorted(data_assets(assets, self._key(TRAINING_DATASET))))
        self._available = available_partitions(self._calendar, assets, solution)
        if fault is not None and fault.key not in self._data:
            raise StackError(
                f"{plan.solution} does not read {fault.key}.", remedy=f"It reads: {', '.join(raw_tables(set(self._data)))}"
            )
        self.plan = ReplayPlan(plan.solution, self._arriving_days(plan.period), plan.length)

    def run_before(self, follow: Callable[[str, str], RunState]) -> FollowingRun | None:
        """The run that the newest decision from before the replay asks for, once it has ended; None where none is under way.

        The sensor has launched it when `automation` switched it on: the first days are predicted by what it deploys, as they would have been.
        What a decision of the replayed days asks for belongs to their step.
        """
        key = self._key(RETRAINING_DECISION)
        newest = max((end for _, end in self._ranges(RETRAINING_DECISION)), default=None)
        ends = {window.key: window.end for window in self._calendar.windows(key)}
        if newest is None or ends[newest] > self.plan.period.first:
            return None
        decision = self.client.metadata(key, newest)
        runs = self.client.runs_with_tag(DECISION_TAG, decision[DECISION])
        if not runs or self.client.run(runs[0]).finished:
            return None
        return self._follow(runs[0], decision[OUTCOME], follow)

    def run_step(
        self,
        period: Period,
        show: Callable[[StageRun], StageRunResult],
        follow: Callable[[str, str], RunState],
    ) -> ReplayStep:
        """Let the days of `period` arrive. `show` runs a stage, `follow` waits for the run that it is given with its name."""
        step, began = ReplayStep(period), time.monotonic()
        if arriving := self._arriving(period):
            runs = self._data_runs(arriving)
            step.stopped = self._inject(runs, period, show)
            step.stages += [show(run) for run in runs]
            late = self._newly_labelled(period, arriving)
            step.stages.append(show(StageRun("outcomes", (self._key(OUTCOMES),), late[0], late[-1])))
        ended, matured = self._windows(period)
        if windows := sorted({*ended, *matured}):
            reports = tuple(self._key(name) for name in stages_of("monitoring", declared_solution(self._name)))
            stage = StageRun("reports and decision", reports, windows[0], windows[-1], again=bool(matured))
            step.stages.append(show(stage))
            step.windows = self._described(windows)
        if ended:
            step.followed_by = self._following_run(ended[-1], follow)
        champion = patiently(partial(registered_champion, self.settings, self._name))
        step.champion = champion.version if champion else None
        step.seconds = time.monotonic() - began
        return step

    def _newly_labelled(self, period: Period, arriving: list[PartitionWindow]) -> list[str]:
        """The partitions up to those that arrive whose last labels may come in `period`, of those that have predictions."""
        begin, last = self._first_prediction(), subtract_duration(period.first, self._label_delay)
        return [window.key for window in self._available if window.last >= last and begin <= window.first <= arriving[-1].first]

    def _data_runs(self, arriving: list[PartitionWindow]) -> list[StageRun]:
        """The runs of the data of these partitions, and of their predictions."""
        keys, assets = (*self._data, self._key(PREDICTIONS)), self.client.assets()
        first, last = arriving[0].first, arriving[-1].last
        return data_runs(self._calendar, assets, keys, first=first, last=last, name="data and predictions")

    def _inject(self, runs: list[StageRun], period: Period, show: Callable[[StageRun], StageRunResult]) -> BlockedDelivery | None:
        """Let the faulty delivery arrive first, if the fault falls into the period; what it wrote is replaced by the true one."""
        fault = self._fault
        if fault is None or fault.last < period.first or period.last < fault.first:
            return None
        [run] = [run for run in runs if fault.key in run.assets]
        windows = self._calendar.windows(fault.key)
        delivered = [window for window in windows if run.first and run.last and run.first <= window.key <= run.last]
        days = Period(delivered[0].first, delivered[-1].last) if delivered else period
        file = self.settings.deliveries_directory / f"{fault.kind}-{fault.table}-{days.first}"
        fault.write(file, start=days.first, end=days.end)
        try:
            result = show(replace(run, name=f"{fault.kind} of {fault.key}", configuration={fault.key: {"files": [str(file)]}}))
        except StackError as error:
            return BlockedDelivery(fault.text, tuple(error.problem.splitlines()[1:]))
        return BlockedDelivery(fault.text, ()) if result.seconds is not None else None

    def automation(self) -> AbstractContextManager[None]:
        """A context in which the retraining sensor of the solution is on; afterwards it is as it was."""
        return switched_on(self.client, sensor_name(self._name))

    def _ranges(self, stage: str) -> tuple[tuple[str, str], ...]:
        """First and last partition of each range of materialized ones."""
        key = self._key(stage)
        return self.client.assets([key])[key].ranges

    def _key(self, stage: str) -> str:
        return f"{self._name}/{stage}"

    def _arriving_days(self, wanted: Period) -> Period:
        """`wanted` up to the last partition that every partitioned raw table has, if that is earlier."""
        there = self._available
        if not self._arriving(wanted):
            span = f"{there[0].first} to {there[-1].last}" if there else "none"
            raise StackError(
                f"{self._name} has no data from {wanted.first} to {wanted.last}: no partition ends there. Its partitions are of {span}.",
                remedy="Choose other days.",
            )
        return Period(wanted.first, min(wanted.last, there[-1].last))

    def _arriving(self, period: Period) -> list[PartitionWindow]:
        """The partitions of the predictions that end in the days of `period`: then they are whole."""
        return [window for window in self._available if window.end is None or period.first < window.end <= period.end]

    def _first_prediction(self) -> date:
        return date.fromisoformat(min(start for start, _ in self._ranges(PREDICTIONS)))

    def _windows(self, period: Period) -> tuple[list[str], list[str]]:
        """Monitoring windows that end in the period and have predictions from their first day on; and earlier ones that were reported
        on before their last labels came, which have come by its end.
        """
        if not self._ranges(PREDICTIONS):
            return [], []
        windows = self._calendar.windows(self._key(DRIFT_REPORT))
        ends = {window.key: window.end for window in windows}
        begin = self._first_prediction().isoformat()
        ended = [key for key, end in ends.items() if period.first < end <= period.end and begin <= key]
        if not self._ranges(PERFORMANCE_REPORT):
            return ended, []
        table = f"{self._name}.performance_report"
        _, found = run_query(self.settings, f"SELECT DISTINCT CAST(window_start AS VARCHAR) FROM {table} WHERE NOT complete")
        return ended, [key for (key,) in found if key in ends and add_duration(ends[key], self._label_delay) <= period.end]

    def _following_run(self, window: str, follow: Callable[[str, str], RunState]) -> FollowingRun | None:
        """The run that the decision of `window` asked for, once it has ended; None when a later decision overtook it."""
        key = self._key(RETRAINING_DECISION)
        decision = self.client.metadata(key, window)
        if (outcome := decision[OUTCOME]) not in FOLLOWED:
            return None
        newest = max(end for _, end in self._ranges(RETRAINING_DECISION))
        deadline = time.monotonic() + _SENSOR_SECONDS
        while not (found := self.client.runs_with_tag(DECISION_TAG, decision[DECISION])):
            if window != newest:
                return None
            if time.monotonic() > deadline:
                raise StackError(
                    f"The sensor {sensor_name(self._name)} launched nothing for the decision of {window}.",
                    remedy="Its last ticks are in Dagster under Automation; mlops logs dagster-daemon",
                )
            time.sleep(_POLL_SECONDS)
        return self._follow(found[0], outcome, follow)

    def _follow(self, run_id: str, outcome: Outcome, follow: Callable[[str, str], RunState]) -> FollowingRun:
        """What came of a run that follows a decision, once it has ended."""
        began = time.monotonic()
        state = follow(run_id, RUN_NAMES[outcome])
        succeeded = state.status == "SUCCESS"
        problems = self.client.refusals(state.run_id) if succeeded else self.client.failures(state.run_id) or [state.status]
        return FollowingRun(
            outcome=outcome, run_url=self.client.run_url(state.run_id), seconds=time.monotonic() - began, problems=tuple(problems)
        )

    def _described(self, windows: list[str]) -> list[dict[str, Any]]:
        """The decisions of the windows, with the rows that were predicted in each."""
        quoted = ", ".join(f"DATE '{window}'" for window in windows)
        columns, rows = run_query(
            self.settings,
            f"SELECT CAST(window_start AS VARCHAR) AS window_start, predictions, model_version, drifted_share, metric, estimated, realised, "
            f"bad_windows, outcome, reason FROM {self._name}.retraining_decision WHERE window_start IN ({quoted}) ORDER BY 1",
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]
