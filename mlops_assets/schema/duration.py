"""Calendar durations such as `14d` or `2y` with dates moved by them, and delays such as `6h`."""

import re
from datetime import date, timedelta
from typing import Annotated

from dateutil.relativedelta import relativedelta
from pydantic import BeforeValidator


def _duration(text: object) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"[1-9]\d*[dwmy]", text):
        raise ValueError("a duration is a number and d, w, m or y, for example 14d or 2y")
    return text


Duration = Annotated[str, BeforeValidator(_duration)]
"""A span of calendar time: `14d`, `8w`, `6m` or `2y`."""


def _delay(text: object) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"[1-9]\d*[hdw]", text):
        raise ValueError("a delay is a number and h, d or w, for example 6h or 2d")
    return text


Delay = Annotated[str, BeforeValidator(_delay)]
"""A span of the clock: `6h`, `2d` or `1w`."""


def delay_time(delay: Delay) -> timedelta:
    """The length of `delay`: a day is 24 hours."""
    return int(delay[:-1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[delay[-1]]


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
