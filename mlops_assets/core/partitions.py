"""Time partitions: how a cadence of a YAML file becomes Dagster partitions. Every key is an ISO date, the first day of its window."""

from datetime import date
from functools import lru_cache

import dagster as dg

from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence


@lru_cache(maxsize=256)
def build_partitions(start: date, end: date | None, cadence: Cadence) -> dg.TimeWindowPartitionsDefinition:
    """Partitions of `cadence` from `start` up to `end` (exclusive; None = open). Weeks begin on Monday."""
    return dg.TimeWindowPartitionsDefinition(
        start=start.isoformat(), end=end.isoformat() if end else None, cron_schedule=CADENCE_LENGTHS[cadence].cron, fmt="%Y-%m-%d"
    )
