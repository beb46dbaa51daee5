"""What acts on the whole graph by itself."""

import dagster as dg

from mlops_assets.automation.conditions import build_conditions_sensor


@dg.definitions
def automation() -> dg.Definitions:
    """The sensor of the automation conditions."""
    return dg.Definitions(sensors=[build_conditions_sensor()])
