"""The jobs that load the tables of a source, and their schedules when the YAML declares one.

The tables of one job have the same partitions, as Dagster wants it: a job is named after the first of them.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import dagster as dg

from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.keys import job_name
from mlops_assets.core.schedules import build_schedule, tick_before
from mlops_assets.schema.source import Source
from mlops_assets.schema.time_partitions import Schedule
from mlops_assets.sources.raw_tables import raw_key, raw_partitions

_PURPOSE = "loading"
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def build_loading_jobs(source: Source, *, name: str) -> list[Any]:
    """The jobs of the source `name`."""
    return [
        define_job(
            job_name(_owner(name, tables), _PURPOSE),
            selection=dg.AssetSelection.assets(*map(raw_key, tables)),
            description=f"Loads the raw tables of {name}: {', '.join(tables)}.",
        )
        for tables in _with_the_same_partitions(source)
    ]


def build_loading_schedules(source: Source, *, name: str) -> list[dg.ScheduleDefinition]:
    """The schedules of the jobs of the source `name`; none when its YAML has none."""
    return [
        _build_schedule(source.schedule, raw_partitions(source.tables[tables[0]]), name=name, tables=tables)
        for tables in _with_the_same_partitions(source)
        if source.schedule
    ]


def _build_schedule(
    schedule: Schedule, partitions: dg.TimeWindowPartitionsDefinition | None, *, name: str, tables: Sequence[str]
) -> dg.ScheduleDefinition:
    """A tick loads the partitions that ended since the tick before it, so that none is left out however seldom it ticks."""

    def load(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        tick = context.scheduled_execution_time
        if partitions is None:
            yield dg.RunRequest(run_key=tick.isoformat())
            return
        since = tick_before(schedule, tick)
        ended = partitions.get_partition_keys(current_time=tick)[len(partitions.get_partition_keys(current_time=since)) :]
        if ended:
            yield dg.RunRequest(run_key=tick.isoformat(), tags={_RANGE_START: ended[0], _RANGE_END: ended[-1]})
        else:
            yield dg.SkipReason(f"No partition ended since {since:%Y-%m-%d %H:%M %Z}.")

    loaded = "the whole" if partitions is None else "what ended since the tick before"
    what = f"Loads {loaded} of {', '.join(tables)}."
    return build_schedule(schedule, owner=_owner(name, tables), purpose=_PURPOSE, what=what, evaluate=load)


def _owner(name: str, tables: Sequence[str]) -> str:
    return f"{name}_{tables[0]}"


def _with_the_same_partitions(source: Source) -> list[list[str]]:
    """The tables of a source in groups, each of one partitions definition or of tables without."""

    def partitions_of(table: str) -> str:
        partitions = source.tables[table].partitions
        return f"{partitions.cadence} {partitions.start} {partitions.end}" if partitions else ""

    return [list(tables) for _, tables in groupby(sorted(source.tables, key=partitions_of), key=partitions_of)]
