"""Batch predictions whose inputs were corrected or came late, and scoring them again on demand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb

from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.keys import OUTCOMES, PREDICTIONS
from mlops_assets.core.prediction_columns import BATCH
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import quote
from mlops_assets.lake.table_changes import CHANGE, changes_since
from mlops_assets.lake.tables import column_types, current_snapshot, table_exists
from mlops_assets.operations.runs import follow_run
from mlops_assets.operations.training import check_overrides
from mlops_assets.schema.column_names import CHANNEL, SOURCE_SNAPSHOT, fold, internal, is_audit
from mlops_assets.stages.inputs import SolutionInputs

_DAY = internal("day")
_SLACK = timedelta(days=1)
"""Partitions are dates in the data's own time zone, prediction times are in UTC."""


@dataclass(frozen=True)
class _Change:
    """Predictions of the partitions from `first` to `last` may have other features now."""

    first: date
    last: date


def outdated_ranges(settings: Settings, solution: str) -> list[tuple[str, str]]:
    """First and last key of each run of adjacent partitions that are outdated. Raises StackError when there is no such solution."""
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    inputs = resolve_inputs(check_overrides(solution, {}), registry)
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        return adjacent_ranges(inputs, outdated_partitions(connection, inputs))


def score_again(
    client: DagsterClient,
    solution: str,
    first: str,
    last: str,
    configuration: Mapping[str, Any],
    report: Callable[[RunState], None],
) -> None:
    """Score the partitions from `first` to `last` with the fields of `ScoringConfig`, and their outcomes; `report` hears how the run stands.

    Raises StackError when the run fails.
    """
    predictions, outcomes = f"{solution}/{PREDICTIONS}", f"{solution}/{OUTCOMES}"
    assets = client.assets((predictions, outcomes))
    needed = [assets[predictions], assets[outcomes]]
    given = {name: value for name, value in configuration.items() if value is not None}
    run_id = client.launch(needed, first, last, {predictions: given}, purpose="scoring again")
    follow_run(client, run_id, f"scoring {first} to {last}", report)


def outdated_partitions(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs) -> list[date]:
    """The partitions with a row that was never predicted, or never from the values that it has now.

    Looked at are those whose spine changed after the snapshot that they were scored from, or a view: up to its freshness after the changed row.
    So are those whose snapshot has expired.
    """
    table, column = inputs.table(PREDICTIONS), quote(inputs.solution.partitions.column)
    if not table_exists(connection, table):
        return []
    scored = connection.execute(
        f"SELECT {SOURCE_SNAPSHOT}, list(DISTINCT {column}) FROM lake.{table} WHERE coalesce({CHANNEL}, '{BATCH}') = '{BATCH}' GROUP BY ALL"
    ).fetchall()
    now, reached = current_snapshot(connection), set[date]()
    kept = {number for (number,) in connection.execute("SELECT snapshot_id FROM lake.snapshots()").fetchall()}
    for snapshot, partitions in scored:
        if snapshot not in kept:
            # What has changed since is not known any more.
            reached |= set(partitions)
        elif snapshot < now:
            changes = list(_changes(connection, inputs, snapshot, now))
            reached |= {day for day in partitions if any(change.first <= day <= change.last for change in changes)}
    return sorted(
        day
        for first, last in adjacent_ranges(inputs, sorted(reached))
        for day in _differing(connection, inputs, first, last, now)
    )


def _differing(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, first: str, last: str, snapshot: int) -> set[date]:
    """The partitions from `first` to `last` with a row whose values at `snapshot` are those of no prediction of it."""
    table, partition = f"lake.{inputs.table(PREDICTIONS)}", quote(inputs.solution.partitions.column)
    end = inputs.partitions.time_window_for_partition_key(last).end.date()
    frame = inputs.frame(
        first=date.fromisoformat(first), end=end, condition=inputs.is_predicted, labelled=False, snapshot=snapshot
    )
    stored, days = {fold(name) for name in column_types(connection, table)}, set[date]()
    for query in frame.built(connection):
        names = [name for name in column_types(connection, f"({query})") if not is_audit(name) and fold(name) in stored]
        values = ", ".join(map(quote, names))
        rows = connection.execute(
            f"SELECT DISTINCT {partition} FROM (SELECT {values} FROM ({query}) EXCEPT SELECT {values} FROM {table} "
            f"WHERE {partition} >= DATE '{first}' AND {partition} < DATE '{end}')"
        ).fetchall()
        days |= {day for (day,) in rows}
    return days


def adjacent_ranges(inputs: SolutionInputs, partitions: Sequence[date]) -> list[tuple[str, str]]:
    """First and last key of each run of adjacent `partitions`."""
    keys = inputs.partitions.get_partition_keys()
    positions = {key: position for position, key in enumerate(keys)}
    found: list[tuple[str, str]] = []
    for key in (each.isoformat() for each in sorted(partitions)):
        if found and positions[key] == positions[found[-1][1]] + 1:
            found[-1] = (found[-1][0], key)
        else:
            found.append((key, key))
    return found


def _changes(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, former: int, now: int) -> Iterator[_Change]:
    spine = inputs.spine_columns(labelled=False)
    for day in _changed_days(connection, inputs.spine.table, spine, inputs.solution.partitions.column, former, now):
        yield _Change(day, day) if day else _EVERY
    for chosen in inputs.views:
        view = chosen.view
        columns = [*view.entity, *([view.event_timestamp] if view.event_timestamp else []), *chosen.features]
        for day in _changed_days(connection, view.model.table, columns, view.model.partition_column, former, now):
            yield _reach(chosen, day) if day else _EVERY


_EVERY = _Change(date.min, date.max)


def _reach(chosen: SelectedView, day: date) -> _Change:
    days = chosen.view.freshness_days
    return _Change(day - _SLACK, date.max if days is None else day + timedelta(days=days) + _SLACK)


def _changed_days(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], partition: str | None, former: int, now: int
) -> list[date | None]:
    """The partitions of `table` that hold other rows now than at the snapshot `former`; None for one that has no date."""
    day = f"CAST({quote(partition)} AS DATE)" if partition else "CAST(NULL AS DATE)"
    names = ", ".join(map(quote, columns))
    rows = connection.execute(
        f"SELECT DISTINCT {_DAY} FROM (SELECT {day} AS {_DAY}, {names} FROM ({changes_since(table, former=former, last=now)}) "
        f"GROUP BY ALL HAVING sum({CHANGE}) <> 0)"
    ).fetchall()
    return [found for (found,) in rows]
