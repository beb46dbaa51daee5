"""Cadences of partitions and windows, with their lengths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cadence = Literal["daily", "weekly", "monthly", "yearly"]


@dataclass(frozen=True)
class CadenceLength:
    """How long a partition is: its fewest and most days, as a duration, on which days it begins, in words and as a cron schedule."""

    fewest_days: int
    most_days: int
    duration: str
    begins_on: str
    cron: str


CADENCE_LENGTHS: Mapping[Cadence, CadenceLength] = {
    "daily": CadenceLength(1, 1, duration="1d", begins_on="any day", cron="0 0 * * *"),
    "weekly": CadenceLength(7, 7, duration="1w", begins_on="a Monday", cron="0 0 * * 1"),
    "monthly": CadenceLength(28, 31, duration="1m", begins_on="the first of a month", cron="0 0 1 * *"),
    "yearly": CadenceLength(365, 366, duration="1y", begins_on="the first of January", cron="0 0 1 1 *"),
}
