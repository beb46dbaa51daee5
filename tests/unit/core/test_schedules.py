"""Ticks of schedules."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.core.schedules import build_schedule, check_schedule, tick_before
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.time_partitions import Schedule

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize("cron", ["", "at dawn", "* * * *", "60 0 * * *", "0 6 * * 8x", "0 0 31 2 *; rm -rf /"])
def test_a_cron_expression_that_is_none_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(ConfigurationError, match="such as 0 6 \\* \\* 1 for Mondays at six") as error:
        check_schedule(Schedule(cron=cron))
    assert error.value.path == ("schedule", "cron")
    assert repr(cron) in error.value.message


def test_no_schedule_is_as_good_as_a_sound_one() -> None:
    check_schedule(None)
    check_schedule(Schedule(cron="*/15 6-18 * * MON-FRI", time_zone="Europe/Berlin"))


def test_a_declared_schedule_runs_but_in_a_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    def status() -> dg.DefaultScheduleStatus:
        schedule = build_schedule(
            Schedule(cron="0 6 * * *"), owner="a", purpose="b", what="Does.", evaluate=lambda context: iter(())
        )
        return schedule.default_status

    assert status() is dg.DefaultScheduleStatus.RUNNING
    monkeypatch.setenv("MLOPS_ENV", "branch-try")
    assert status() is dg.DefaultScheduleStatus.STOPPED


@settings(max_examples=50)
@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.integers(0, 23))
def test_no_tick_lies_between_a_moment_and_the_tick_before_it(moment: datetime, hour: int) -> None:
    tick = moment.replace(microsecond=0, tzinfo=UTC)
    previous = tick_before(Schedule(cron=f"0 {hour} * * *", time_zone="UTC"), tick)
    assert timedelta(0) < tick - previous <= timedelta(days=1)
    assert (previous.hour, previous.minute, previous.second) == (hour, 0, 0)


def test_a_day_of_23_hours_has_one_tick() -> None:
    schedule = Schedule(cron="0 6 * * *", time_zone="America/New_York")
    tick = datetime(2024, 3, 10, 6, tzinfo=NEW_YORK)
    assert tick_before(schedule, tick) == datetime(2024, 3, 9, 6, tzinfo=NEW_YORK)
    assert tick.astimezone(UTC) - tick_before(schedule, tick).astimezone(UTC) == timedelta(hours=23)


def test_a_declared_schedule_runs_its_owners_job_by_the_owners_clock() -> None:
    def evaluate(context: dg.ScheduleEvaluationContext) -> "dg.RunRequest | dg.SkipReason":
        yield dg.SkipReason(f"nothing since {context.scheduled_execution_time:%H:%M}")

    declared = Schedule(cron="30 6 * * *", time_zone="Europe/Berlin")
    schedule = build_schedule(declared, owner="shop", purpose="loading", what="Loads.", evaluate=evaluate)
    assert (schedule.name, schedule.job_name) == ("shop_loading_schedule", "shop_loading")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 6 * * *", "Europe/Berlin")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2024, 1, 1, 6, 30, tzinfo=ZoneInfo("Europe/Berlin")))
    execution = schedule.evaluate_tick(context)
    assert (execution.run_requests, execution.skip_message) == ([], "nothing since 06:30")
