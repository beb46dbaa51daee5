"""The YAML schema of time partitions and cron schedules, of sources and solutions alike."""

from datetime import date, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, model_validator

from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence
from mlops_assets.schema.duration import Duration, add_duration
from mlops_assets.schema.yaml_model import YamlModel


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone of the tz database, such as Europe/Berlin") from error
    return name


class Partitions(YamlModel):
    """Time partitions of a source or a solution: `column` is the DATE column of its tables that holds the partition.

    The dates are those of `time_zone`: a training date begins at its midnight. Without a new materialization for `freshness`, Dagster
    shows the table (of a solution: its predictions) as stale.
    """

    column: str
    """The DATE column that holds the partition: in a source a column of type `date`, in a solution a column of the spine."""
    start: date
    """First day."""
    end: date | None = None
    """Day after the last one; left out, the partitions go on to today."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """The time zone of the dates, such as `America/New_York`: a training date begins at its midnight."""
    cadence: Cadence = "daily"
    """Length of a partition. Its key is its first day; weeks begin on Monday."""
    freshness: Duration | None = None
    """Time without a new materialization after which Dagster shows the table, of a solution its predictions, as stale. None:
    never."""

    @model_validator(mode="after")
    def _has_whole_partitions(self) -> "Partitions":
        check_bounds(self.start, self.end, self.cadence)
        return self


def check_bounds(start: date, end: date | None, cadence: Cadence) -> None:
    """Raise ValueError unless `end` is after `start` and both begin a partition: rows of half a partition would never be loaded."""
    if end is not None and end <= start:
        raise ValueError(f"end {end} is not after start {start}")
    for name, bound in (("start", start), ("end", end)):
        if bound is None or (begin := period_start(bound, cadence)) == bound:
            continue
        following = add_duration(begin, CADENCE_LENGTHS[cadence].duration)
        lost, kept, other = (
            (f"before {following}", begin, following) if name == "start" else (f"from {begin} on", following, begin)
        )
        alternative = "" if name == "end" and other <= start else f", or to {other}"
        raise ValueError(
            f"{cadence} partitions begin on {CADENCE_LENGTHS[cadence].begins_on}: with {name} {bound} the rows {lost} would never be loaded. "
            f"Set {name} to {kept} to load them{alternative}"
        )


def period_start(day: date, cadence: Cadence) -> date:
    """The first day of the week, month or year around `day`."""
    match cadence:
        case "weekly":
            return day - timedelta(days=day.weekday())
        case "monthly":
            return day.replace(day=1)
        case "yearly":
            return day.replace(month=1, day=1)
        case _:
            return day


class Schedule(YamlModel):
    """When something is done by the clock on the wall. A schedule that is declared runs; Dagster's page *Automation* stops it."""

    cron: str
    """Minute, hour, day of the month, month and weekday, such as `0 6 * * 1` for Mondays at six."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """Time zone of `cron`, a name of the tz database."""
