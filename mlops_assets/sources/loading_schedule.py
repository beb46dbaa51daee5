"""The job that loads the tables of a source, and its schedule when the YAML declares one."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import dagster as dg

from mlops_assets.core.keys import job_name
from mlops_assets.core.schedules import build_schedule, tick_before
from mlops_assets.schema.source import Source
from mlops_assets.sources.raw_tables import raw_key, raw_partitions

PURPOSE = "loading"

_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def build_loading_job(source: Source, *, name: str) -> Any:
    """The job of the source `name`."""
    selection = dg.AssetSelection.assets(*map(raw_key, source.tables))
    return dg.define_asset_job(job_name(name, PURPOSE), selection=selection, description=f"Loads the raw tables of {name}.")


def build_loading_schedules(source: Source, *, name: str) -> list[dg.ScheduleDefinition]:
    """The schedule of the source `name`; none when its YAML has none.

    A tick loads the partitions that ended since the tick before it, so that none is left out however seldom it ticks, and the tables
    without partitions as a whole. Tables with the same partitions are one run.
    """
    schedule = source.schedule
    if schedule is None:
        return []

    def partitions_of(table: str) -> str:
        partitions = source.tables[table].partitions
        return f"{partitions.cadence} {partitions.start} {partitions.end}" if partitions else ""

    def load(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        tick = context.scheduled_execution_time
        since = tick_before(schedule, tick)
        requests = []
        for _, together in groupby(sorted(source.tables, key=partitions_of), key=partitions_of):
            tables = list(together)
            partitions = raw_partitions(source.tables[tables[0]])
            tags = {}
            if partitions is not None:
                before = len(partitions.get_partition_keys(current_time=since))
                if not (ended := partitions.get_partition_keys(current_time=tick)[before:]):
                    continue
                tags = {_RANGE_START: ended[0], _RANGE_END: ended[-1]}
            run_key = f"{tick.isoformat()} {tables[0]}"
            requests.append(dg.RunRequest(run_key=run_key, asset_selection=[raw_key(table) for table in tables], tags=tags))
        yield from requests or [dg.SkipReason(f"No partition ended since {since:%Y-%m-%d %H:%M %Z}.")]

    what = f"Loads what ended since the tick before of the raw tables of {name}."
    return [build_schedule(schedule, owner=name, purpose=PURPOSE, what=what, evaluate=load)]
