"""How a replay divides time into steps."""

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.operations.replay_plan import Period, ReplayPlan

days = st.dates(date(2012, 1, 1), date(2016, 1, 1))


@given(days, st.integers(0, 500), st.sampled_from(["day", "week", "month", "year"]))
def test_steps_cover_every_day_once(first: date, length: int, step: str) -> None:
    period = Period(first, first + timedelta(days=length))
    steps = list(ReplayPlan("any", period, step).steps())  # type: ignore[arg-type]
    assert steps[0].first == period.first
    assert steps[-1].last == period.last
    assert all(each.first <= each.last for each in steps)
    assert all(later.first == earlier.end for earlier, later in pairwise(steps))


def test_steps_end_with_the_month_or_the_week() -> None:
    period = Period(date(2013, 7, 30), date(2013, 9, 3))
    months = [step.last for step in ReplayPlan("any", period, "month").steps()]
    assert months == [date(2013, 7, 31), date(2013, 8, 31), date(2013, 9, 3)]
    weeks = [step.last for step in ReplayPlan("any", period, "week").steps()]
    assert weeks[:2] == [date(2013, 8, 4), date(2013, 8, 11)]
