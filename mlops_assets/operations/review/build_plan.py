"""The days for which changed dbt models are built beside production: those that are compared, and what these are computed from."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from graphlib import TopologicalSorter
from typing import Any

import duckdb

from mlops_assets.feature_store.column_lineage import relation_name
from mlops_assets.feature_store.point_in_time import STALE_DAYS
from mlops_assets.features.dbt_translation import partition_column
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import query_value, table_exists
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.inputs import SolutionInputs

_SLACK_DAYS = 3
"""Partitions are dates in the data's own time zone, and a date may begin an hour earlier."""


@dataclass(frozen=True)
class ComparedWindows:
    """The last windows of a solution with labels: they begin on each of `starts`, and the last one ends before `end`."""

    starts: tuple[date, ...]
    end: date

    @property
    def first(self) -> date:
        """The first day that is compared, and the date for which models are trained: they may know what was before."""
        return self.starts[0]


@dataclass(frozen=True)
class BuildPlan:
    """The `models`, by id, that are built together for the days from `first` to before `end`; compared are those from `compared` on."""

    models: tuple[str, ...]
    first: date
    compared: date
    end: date


def last_windows(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, count: int, snapshot: int
) -> ComparedWindows | None:
    """Return the last `count` windows of the solution whose labels the lake has; None where there is no such window.

    A table without time has a snapshot a day, and its last ones are its windows.
    """
    if not table_exists(connection, inputs.spine.table):
        return None
    column = quote(inputs.solution.partitions.column)
    condition = f"WHERE {inputs.is_labelled}" if inputs.solution.spine.has_time else ""
    newest = query_value(
        connection, f"SELECT max({column}) FROM {lake_name(inputs.spine.table)} AT (VERSION => {snapshot}) {condition}"
    )
    oldest = query_value(connection, f"SELECT min({column}) FROM {lake_name(inputs.spine.table)} AT (VERSION => {snapshot})")
    if newest is None:
        return None
    # The clock does not count: the windows of a table that ended years ago are its last ones.
    keys = [date.fromisoformat(key) for key in inputs.windows.get_partition_keys()]
    ends = {
        key: inputs.windows.time_window_for_partition_key(key.isoformat()).end.date() for key in keys if oldest <= key <= newest
    }
    whole = [key for key, end in sorted(ends.items()) if end <= newest + timedelta(days=1)]
    chosen = tuple(whole[-count:])
    return ComparedWindows(chosen, ends[chosen[-1]]) if chosen else None


def plan_builds(
    connection: duckdb.DuckDBPyConnection,
    manifest: Mapping[str, Any],
    *,
    built: Collection[str],
    solutions: Sequence[tuple[SolutionInputs, Collection[str], ComparedWindows]],
    for_models: bool,
) -> list[BuildPlan]:
    """Return what is to be built of the models `built` for each of `solutions`, given with all the models that it is computed from.

    Solutions that share a model or the end of their windows share a build: what is built again replaces what was.
    With `for_models` it reaches back to the beginning of a training.
    """
    plans: list[BuildPlan] = []
    for inputs, models, windows in solutions:
        needed = tuple(key for key in built if key in models)
        if not needed:
            continue
        begin = windows.first
        if for_models and inputs.solution.spine.has_time:
            begin = subtract_duration(begin, inputs.solution.training.window)
        back = _history_days(manifest, needed) + _SLACK_DAYS
        lookback = _freshness_days(inputs, manifest, needed)
        oldest = min(_oldest(connection, manifest, needed), default=begin)
        first = oldest if lookback is None else max(oldest, begin - timedelta(days=back + lookback))
        plan = BuildPlan(needed, first, windows.first, windows.end)
        shared = [other for other in plans if other.end == plan.end or set(other.models) & set(plan.models)]
        plans = [other for other in plans if other not in shared] + [_merge([*shared, plan])]
    return plans


def _merge(plans: Sequence[BuildPlan]) -> BuildPlan:
    return BuildPlan(
        tuple(dict.fromkeys(key for plan in plans for key in plan.models)),
        first=min(plan.first for plan in plans),
        compared=min(plan.compared for plan in plans),
        end=max(plan.end for plan in plans),
    )


def _history_days(manifest: Mapping[str, Any], models: Sequence[str]) -> int:
    """How many days before its own partition the last of `models` depends on: each reads some of those before it."""
    parents = {key: [parent for parent in manifest["nodes"][key]["depends_on"]["nodes"] if parent in models] for key in models}
    days: dict[str, int] = {}
    for key in TopologicalSorter(parents).static_order():
        meta = manifest["nodes"][key]["config"].get("meta", {})
        own = int(meta.get("dagster", {}).get("history_days", 0))
        days[key] = own + max((days[parent] for parent in parents[key]), default=0)
    return max(days.values(), default=0)


def _freshness_days(inputs: SolutionInputs, manifest: Mapping[str, Any], models: Sequence[str]) -> int | None:
    """How many days before a prediction a value of the built views may have become known; None: any."""
    tables = {relation_name(manifest["nodes"][key]) for key in models}
    days = [chosen.view.freshness_days for chosen in inputs.views if chosen.view.model.table in tables]
    known = [limit + STALE_DAYS for limit in days if limit is not None]
    return None if len(known) < len(days) else max(known, default=0)


def _oldest(connection: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any], models: Sequence[str]) -> Iterator[date]:
    """The first partition of each of `models` that production has."""
    for key in models:
        node = manifest["nodes"][key]
        table, column = relation_name(node), partition_column(node)
        if column and table_exists(connection, table):
            oldest = query_value(connection, f"SELECT min({quote(column)}) FROM {lake_name(table)}")
            if oldest is not None:
                yield oldest
