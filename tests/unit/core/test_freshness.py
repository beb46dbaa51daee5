"""When a table is stale: never before an update was missed, and always as its YAML states."""

from datetime import date, timedelta
from typing import get_args

import dagster as dg
import pytest
from clinic import solution_inputs
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.core.freshness import (
    cadence_freshness,
    freshness_policy,
    model_freshness,
    never_stale,
    partition_freshness,
    window_freshness,
)
from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence
from mlops_assets.schema.duration import add_duration
from mlops_assets.schema.solution import Solution


def fails_after(policy: dg.FreshnessPolicy | None) -> timedelta:
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    return policy.fail_window.to_timedelta()


def changed(section: str, **fields: object) -> Solution:
    solution = solution_inputs("monthly").solution
    return solution.model_copy(update={section: getattr(solution, section).model_copy(update=fields)})


@settings(max_examples=50)
@given(st.sampled_from(get_args(Cadence)), st.dates(date(2000, 1, 1), date(2060, 1, 1)))
def test_a_table_that_missed_no_update_is_fresh_whatever_the_calendar(cadence: Cadence, day: date) -> None:
    begin = {"weekly": day - timedelta(days=day.weekday()), "monthly": day.replace(day=1), "yearly": day.replace(month=1, day=1)}
    start = begin.get(cadence, day)
    end = add_duration(add_duration(start, CADENCE_LENGTHS[cadence].duration), CADENCE_LENGTHS[cadence].duration)
    # From the load of one partition, at its end, to that of the next, and a whole partition to spare.
    assert fails_after(cadence_freshness(cadence)) >= end - start


def test_a_stated_freshness_is_that_of_the_predictions_alone() -> None:
    stated = changed("partitions", freshness="3d")
    assert fails_after(partition_freshness(stated)) == timedelta(days=3)
    assert fails_after(window_freshness(stated)) == fails_after(window_freshness(changed("partitions")))
    assert fails_after(partition_freshness(changed("partitions"))) == timedelta(days=62)


@settings(max_examples=50)
@given(st.integers(1, 60), st.sampled_from("dwmy"), st.dates(date(2000, 1, 1), date(2060, 1, 1)))
def test_a_stated_duration_is_over_before_the_table_is_stale(count: int, unit: str, day: date) -> None:
    assert fails_after(freshness_policy(f"{count}{unit}")) >= add_duration(day, f"{count}{unit}") - day


def test_what_follows_an_event_is_never_stale() -> None:
    assert freshness_policy(None) is None
    assert never_stale(changed("partitions", freshness="1d")) is None


@pytest.mark.parametrize(("age", "days"), [(None, None), ("2w", 14)])
def test_a_model_is_stale_at_the_age_at_which_it_is_trained_again(age: str | None, days: int | None) -> None:
    policy = model_freshness(changed("retraining", max_age=age))
    assert (None if policy is None else fails_after(policy).days) == days
