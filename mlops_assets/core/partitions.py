"""Time partitions: how a cadence of a YAML file becomes Dagster partitions. Every key is an ISO date, the first day of its window."""

from datetime import date
from typing import Literal

import dagster as dg

Cadence = Literal["daily", "weekly", "monthly", "yearly"]

_CRON = {"daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *", "yearly": "0 0 1 1 *"}


def build_partitions(start: date, end: date | None, cadence: Cadence) -> dg.TimeWindowPartitionsDefinition:
    """Partitions of `cadence` from `start` up to `end` (exclusive; None = open). Weeks begin on Monday."""
    return dg.TimeWindowPartitionsDefinition(
        start=start.isoformat(), end=end.isoformat() if end else None, cron_schedule=_CRON[cadence], fmt="%Y-%m-%d"
    )
