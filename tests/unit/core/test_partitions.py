"""Partitions of a cadence: every day is in exactly one, which is named by its first day."""

from datetime import date, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.core.partitions import build_partitions
from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence
from mlops_assets.schema.duration import add_duration


@settings(max_examples=20)
@given(st.sampled_from(get_args(Cadence)), st.dates(date(1970, 1, 1), date(2005, 1, 1)), st.integers(1, 20))
def test_windows_follow_one_another_and_are_named_by_their_first_day(cadence: Cadence, near: date, count: int) -> None:
    days = {"daily": near, "weekly": near - timedelta(days=near.weekday()), "monthly": near.replace(day=1)}
    start = days.get(cadence, near.replace(month=1, day=1))
    end = start
    for _ in range(count):
        end = add_duration(end, CADENCE_LENGTHS[cadence].duration)
    partitions = build_partitions(start, end, cadence)
    keys = partitions.get_partition_keys()
    assert (keys[0], len(keys)) == (start.isoformat(), count)
    windows = [partitions.time_window_for_partition_key(key) for key in keys]
    assert [window.start.date().isoformat() for window in windows] == keys
    assert [window.end for window in windows[:-1]] == [window.start for window in windows[1:]]
    assert windows[-1].end.date() == end


@pytest.mark.parametrize(
    ("cadence", "now", "newest"),
    [
        ("daily", datetime(2024, 3, 2, 0, 0, 1), "2024-03-01"),
        ("weekly", datetime(2024, 3, 3, 23), "2024-02-19"),
        ("weekly", datetime(2024, 3, 4, 1), "2024-02-26"),
        ("monthly", datetime(2024, 2, 29), "2024-01-01"),
        ("yearly", datetime(2024, 12, 31), "2023-01-01"),
    ],
)
def test_an_open_table_has_the_partitions_that_ended(cadence: Cadence, now: datetime, newest: str) -> None:
    start = date(2018, 1, 1)  # a Monday
    assert build_partitions(start, None, cadence).get_partition_keys(current_time=now)[-1] == newest
