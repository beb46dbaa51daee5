"""The plan of a replay: its days and the steps in which they arrive."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from dateutil.relativedelta import relativedelta

StepLength = Literal["day", "week", "month", "year"]


@dataclass(frozen=True)
class Period:
    """Days from `first` to `last`."""

    first: date
    last: date

    @property
    def end(self) -> date:
        """The day after the last."""
        return self.last + timedelta(days=1)


@dataclass(frozen=True)
class ReplayPlan:
    """Which solution, from which day to which, and how many days arrive at a time."""

    solution: str
    period: Period
    length: StepLength

    def steps(self) -> Iterator[Period]:
        """The steps: calendar years or months, weeks from Monday to Sunday, or days; the first and the last may be shorter."""
        first = self.period.first
        while first <= self.period.last:
            match self.length:
                case "day":
                    end = first + timedelta(days=1)
                case "week":
                    end = first + timedelta(days=7 - first.weekday())
                case "month":
                    end = first.replace(day=1) + relativedelta(months=1)
                case "year":
                    end = first.replace(month=1, day=1) + relativedelta(years=1)
            yield Period(first, min(end - timedelta(days=1), self.period.last))
            first = end
