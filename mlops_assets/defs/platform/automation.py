"""What acts on the whole graph by itself."""

import dagster as dg

from mlops_assets.core.conditions import build_conditions_sensors
from mlops_assets.monitoring.notifications import build_notification_sensors
from mlops_assets.monitoring.run_recovery import build_run_recovery_sensor


@dg.definitions
def automation() -> dg.Definitions:
    """The sensors of the automation conditions, those that notify, and the one that recovers runs."""
    return dg.Definitions(sensors=[*build_conditions_sensors(), *build_notification_sensors(), build_run_recovery_sensor()])
