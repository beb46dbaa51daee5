"""Schedules of YAML files: their check when they are loaded, and what every one of them has in common."""

from collections.abc import Callable, Iterator
from datetime import datetime

import dagster as dg
from dagster._utils.schedules import is_valid_cron_string, reverse_cron_string_iterator

from mlops_assets.core.environment_files import is_branch
from mlops_assets.core.keys import job_name
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.time_partitions import Schedule

Evaluate = Callable[[dg.ScheduleEvaluationContext], Iterator[dg.RunRequest | dg.SkipReason]]


def check_schedule(schedule: Schedule | None) -> None:
    """Raise ConfigurationError unless its cron expression is one that Dagster follows."""
    if schedule is not None and not is_valid_cron_string(schedule.cron):
        raise ConfigurationError(
            ("schedule", "cron"),
            f"{schedule.cron!r} is no cron expression of minute, hour, day, month and weekday, such as 0 6 * * 1 for Mondays at six",
        )


def build_schedule(schedule: Schedule, *, owner: str, purpose: str, what: str, evaluate: Evaluate) -> dg.ScheduleDefinition:
    """The schedule of a job of a source or a solution, which launches what `evaluate` yields. It runs, unless in a branch."""

    @dg.schedule(
        name=f"{job_name(owner, purpose)}_schedule",
        job_name=job_name(owner, purpose),
        cron_schedule=schedule.cron,
        execution_timezone=schedule.time_zone,
        description=f"{what} Ticks at {schedule.cron} ({schedule.time_zone}).",
        default_status=schedule_status(),
    )
    def scheduled(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        yield from evaluate(context)

    return scheduled


def schedule_status() -> dg.DefaultScheduleStatus:
    """Whether a schedule runs that nobody switched on or off: not in a branch environment, where a person starts what they want to see."""
    return dg.DefaultScheduleStatus.STOPPED if is_branch() else dg.DefaultScheduleStatus.RUNNING


def tick_before(schedule: Schedule, tick: datetime) -> datetime:
    """The tick before `tick`."""
    ticks = reverse_cron_string_iterator(tick.timestamp(), schedule.cron, schedule.time_zone)
    return next(moment for moment in ticks if moment < tick)
