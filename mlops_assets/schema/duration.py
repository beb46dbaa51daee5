"""Calendar durations such as `14d` or `2y`, and dates moved by them."""

import re
from datetime import date, timedelta
from typing import Annotated

from dateutil.relativedelta import relativedelta
from pydantic import AfterValidator


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[dwmy]", text):
        raise ValueError("a duration is a number and d, w, m or y, for example 14d or 2y")
    return text


Duration = Annotated[str, AfterValidator(_duration)]
"""A span of calendar time: `14d`, `8w`, `6m` or `2y`."""


def subtract_duration(day: date, duration: Duration) -> date:
    """The day `duration` before `day`."""
    return day - _calendar(duration)


def add_duration(day: date, duration: Duration) -> date:
    """The day `duration` after `day`."""
    return day + _calendar(duration)


def _calendar(duration: Duration) -> timedelta | relativedelta:
    count, unit = int(duration[:-1]), duration[-1]
    match unit:
        case "d":
            return timedelta(days=count)
        case "w":
            return timedelta(weeks=count)
        case "m":
            return relativedelta(months=count)
        case _:
            return relativedelta(years=count)


def maximum_days(duration: Duration) -> int:
    """The most days that `duration` may have: a month has 31, a year 366."""
    return int(duration[:-1]) * {"d": 1, "w": 7, "m": 31, "y": 366}[duration[-1]]
