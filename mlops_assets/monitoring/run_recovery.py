"""The sensor that recovers runs whose worker is gone, and tells of what stands still for long."""

from collections import Counter

import dagster as dg

from mlops_assets.clients.notifier import Notifier
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.monitoring.notifications import blockage_notification
from mlops_assets.runs.recovery import recover_runs
from mlops_assets.runs.stuck import find_blockages

_INTERVAL_SECONDS = 10
_TELL_SECONDS = 600.0
"""A run that waits longer than this in the queue is told of: the longest steps of the platform take some minutes."""

_TICK_SECONDS = 20.0


def build_run_recovery_sensor() -> dg.SensorDefinition:
    """The sensor. It is on, and launches nothing itself: Dagster tries a run again that failed for the loss of its worker."""

    @dg.sensor(
        name="run_recovery",
        description="Fails runs whose process is gone, so that they are tried again, and tells of runs that stand still.",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def run_recovery(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], notifier: dg.ResourceParam[Notifier]
    ) -> dg.SkipReason:
        recovered = recover_runs(context.instance, served=True)
        waiting = [
            stuck for stuck in find_blockages(context.instance) if stuck.kind == "queued" and stuck.seconds > _TELL_SECONDS
        ]
        notifier.notify([blockage_notification(settings, stuck) for stuck in waiting], seconds=_TICK_SECONDS)
        if not recovered:
            return dg.SkipReason("every run has a worker")
        done = Counter(recovery.action.value for recovery in recovered)
        return dg.SkipReason(", ".join(f"{count} to {action}" for action, count in sorted(done.items())))

    return run_recovery
