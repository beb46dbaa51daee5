"""What acts on the whole graph by itself."""

import dagster as dg

from mlops_assets.automation.conditions import build_conditions_sensors
from mlops_assets.automation.notifications import build_notification_sensors


@dg.definitions
def automation() -> dg.Definitions:
    """The sensors of the automation conditions, and those that notify."""
    return dg.Definitions(sensors=[*build_conditions_sensors(), *build_notification_sensors()])
