"""Daemons of Dagster that act on what they hear of a run, instead of at the end of an interval.

A run that waits is started, and the sensors that follow runs are evaluated once one has ended. Dagster's own daemons look every few seconds,
and at a sensor after its interval. These intervals stay, for whatever is not heard.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from dagster import DagsterInstance
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.controller import create_daemon_of_type
from dagster._daemon.daemon import DaemonIterator, DagsterDaemon, SensorDaemon, SpanMarker
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from mlops_assets.core.keys import FOLLOWS_RUNS
from mlops_assets.runs.event_storage import ScheduleStorage
from mlops_assets.runs.run_notices import RunNotice

_QUEUE_SPACING_SECONDS = 0.02
_SENSOR_SPACING_SECONDS = 1.0
"""Runs that end one after another have their followers evaluated once a second, not once each."""


class Pauses(threading.Event):
    """The pauses of a daemon, in place of the event of its shutdown: they end when something was heard.

    Two ends are at least `spacing` seconds apart.
    """

    def __init__(self, spacing: float) -> None:
        super().__init__()
        self._spacing = spacing
        self._ended = 0.0
        self._shutdown: threading.Event | None = None

    def until(self, shutdown: threading.Event) -> "Pauses":
        """These pauses, which `shutdown` ends as well."""
        if self._shutdown is not shutdown:
            self._shutdown = shutdown
            threading.Thread(target=self._end_at_shutdown, args=(shutdown,), name="shutdown", daemon=True).start()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until something was heard since the last pause, for `timeout` seconds at most. Returns whether the daemon is to end."""
        assert self._shutdown is not None
        super().wait(timeout)
        self._shutdown.wait(max(0.0, self._ended + self._spacing - time.monotonic()))
        if not self._shutdown.is_set():
            self.clear()
        self._ended = time.monotonic()
        return self._shutdown.is_set()

    def _end_at_shutdown(self, shutdown: threading.Event) -> None:
        shutdown.wait()
        self.set()


class PromptQueueDaemon(QueuedRunCoordinatorDaemon):
    """Starts what waits when it hears of a run that waits or has ended, and every `interval_seconds`."""

    def __init__(self, interval_seconds: float) -> None:
        super().__init__(interval_seconds=0)  # the pause is before each look
        self._seconds = interval_seconds
        self._pauses = Pauses(_QUEUE_SPACING_SECONDS)

    def hear(self, notice: RunNotice) -> None:
        """A run that ends leaves its slot to another."""
        self._pauses.set()

    def core_loop(self, workspace_process_context: IWorkspaceProcessContext, shutdown_event: threading.Event) -> DaemonIterator:
        """Look for ever."""
        self._pauses.until(shutdown_event)
        return super().core_loop(workspace_process_context, shutdown_event)

    def run_iteration(self, workspace_process_context: IWorkspaceProcessContext, *args: Any, **keywords: Any) -> DaemonIterator:
        """Pause, then start what can be started."""
        self._pauses.wait(self._seconds)
        yield from super().run_iteration(workspace_process_context, *args, **keywords)


class _FollowsRuns(DagsterDaemon[IWorkspaceProcessContext]):
    """Evaluates sensors with `FOLLOWS_RUNS` when it hears that a run has ended, and every sensor at its interval."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)  # type: ignore[no-untyped-call]
        self._pauses = Pauses(_SENSOR_SPACING_SECONDS)
        self._ended = 0.0

    def hear(self, notice: RunNotice) -> None:
        """Sensors follow what a run has done, once it has ended."""
        if notice is RunNotice.ENDED:
            self._ended = time.time()
            self._pauses.set()

    def core_loop(self, workspace_process_context: IWorkspaceProcessContext, shutdown_event: threading.Event) -> DaemonIterator:
        """Evaluate what is due, for ever."""
        schedules = workspace_process_context.instance.schedule_storage
        assert isinstance(schedules, ScheduleStorage)
        for step in super().core_loop(workspace_process_context, self._pauses.until(shutdown_event)):  # type: ignore[safe-super]
            if step is SpanMarker.START_SPAN:
                schedules.due = dict.fromkeys(_followers(workspace_process_context), self._ended)
            yield step


class PromptSensorDaemon(_FollowsRuns, SensorDaemon):
    """Dagster's daemon of sensors."""


class PromptAssetDaemon(_FollowsRuns, AssetDaemon):
    """Dagster's daemon of automation conditions."""


def create_prompt_daemons(instance: DagsterInstance) -> tuple[list[DagsterDaemon], Callable[[RunNotice], None]]:
    """The daemons that `instance` needs, and what is to be called with each notice of a run."""
    prompt: dict[str, Callable[[], PromptQueueDaemon | PromptSensorDaemon | PromptAssetDaemon]] = {
        QueuedRunCoordinatorDaemon.daemon_type(): lambda: PromptQueueDaemon(_queue_interval(instance)),
        SensorDaemon.daemon_type(): lambda: PromptSensorDaemon(instance.get_sensor_settings()),
        AssetDaemon.daemon_type(): lambda: PromptAssetDaemon(instance.get_auto_materialize_settings(), 0),
    }
    needed = instance.get_required_daemon_types()
    listening = [create() for name, create in prompt.items() if name in needed]
    others = [create_daemon_of_type(name, instance) for name in needed if name not in prompt]

    def hear(notice: RunNotice) -> None:
        for daemon in listening:
            daemon.hear(notice)

    return [*listening, *others], hear


def _queue_interval(instance: DagsterInstance) -> float:
    """How often the queue is looked at, in seconds, when nothing is heard: `run_coordinator` of dagster.yaml."""
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, QueuedRunCoordinator)
    return coordinator.dequeue_interval_seconds


def _followers(workspace_process_context: IWorkspaceProcessContext) -> set[str]:
    """The selectors of the sensors that follow runs."""
    [(tag, value)] = FOLLOWS_RUNS.items()
    return {
        sensor.selector_id
        for entry in workspace_process_context.create_request_context().get_code_location_entries().values()
        if entry.code_location is not None
        for repository in entry.code_location.get_repositories().values()
        for sensor in repository.get_sensors()
        if sensor.tags.get(tag) == value
    }
