"""Origins of feature values: the row of each view that a prediction was made from, and the partitions of raw tables behind such rows.

All is read at the snapshots that were recorded with the prediction, so that a later correction of a source changes no answer.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import duckdb

from mlops_assets.feature_store.registry import FeatureRegistry, FeatureView
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import query_value
from mlops_assets.operations.partition_windows import PartitionWindow
from mlops_assets.schema.column_names import (
    FEATURE_VIEWS,
    LOADED_AT,
    SOURCE_SNAPSHOT,
    VIEW_FLAGS,
    VIEW_SNAPSHOTS,
    known_since_column,
)


@dataclass(frozen=True)
class Days:
    """The days from `first` to `last`."""

    first: date
    last: date

    def with_earlier(self, days: int) -> "Days":
        """These days and as many before them."""
        earliest = self.first - date.min
        return Days(self.first - min(timedelta(days=days), earliest), self.last)

    def union(self, other: "Days") -> "Days":
        """All days from the first to the last of both."""
        return Days(min(self.first, other.first), max(self.last, other.last))


@dataclass(frozen=True)
class TableRead:
    """The days of a table that were read as of a snapshot; None: all of it."""

    days: Days | None
    snapshot: int


@dataclass(frozen=True)
class ValueOrigin:
    """The row of a feature view that gave its values to a prediction.

    `snapshot` is that of the lake, or the one that the online store held of the view; None of values that came with the request. The date of
    the row's partition and the time at which its newest raw row was loaded are None where the view has none, where the entity has no row,
    and where the snapshot has expired: `is_expired`.
    """

    view: FeatureView
    flag: str | None
    snapshot: int | None
    values_from: datetime | None
    partition: date | None
    loaded_at: datetime | None
    has_row: bool
    is_expired: bool


def value_origins(
    connection: duckdb.DuckDBPyConnection, registry: FeatureRegistry, values: Mapping[str, Any]
) -> list[ValueOrigin]:
    """The origin of the values of each view in the stored prediction `values`, column by column."""
    flags, snapshots = (json.loads(values.get(name) or "{}") for name in (VIEW_FLAGS, VIEW_SNAPSHOTS))
    origins = []
    for name, version in json.loads(values[FEATURE_VIEWS]).items():
        view = registry.view(name, version)
        # A server names the snapshot of each view, the batch one of all.
        snapshot = snapshots.get(name) if snapshots else values.get(SOURCE_SNAPSHOT)
        moment = values.get(known_since_column(name))
        is_expired = snapshot is not None and not is_kept(connection, snapshot)
        row = None if snapshot is None or is_expired else _row(connection, view, snapshot, values, moment)
        partition, loaded_at = row or (None, None)
        origins.append(
            ValueOrigin(view, flags.get(name), snapshot, moment, partition, loaded_at, row is not None, is_expired=is_expired)
        )
    return origins


def _row(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureView,
    snapshot: int,
    values: Mapping[str, Any],
    moment: datetime | None,
) -> tuple[date | None, datetime | None] | None:
    """Partition and load time of the row of `view` at `snapshot`; None when there was none."""
    identity = {key: values.get(key) for key in view.entity}
    if view.event_timestamp:
        identity[view.event_timestamp] = moment
    if None in identity.values():
        return None
    partition = f"CAST({quote(view.model.partition_column)} AS DATE)" if view.model.partition_column else "CAST(NULL AS DATE)"
    loaded = quote(LOADED_AT) if LOADED_AT in view.model.columns else "CAST(NULL AS TIMESTAMPTZ)"
    same = " AND ".join(f"{quote(column)} = ?" for column in identity)
    # Of several rows of one entity and time the join takes the one that was loaded last.
    rows = connection.execute(
        f"SELECT {partition}, {loaded} FROM {lake_name(view.model.table)} AT (VERSION => {snapshot}) WHERE {same} "
        "ORDER BY 2 DESC NULLS LAST LIMIT 1",
        list(identity.values()),
    ).fetchall()
    return rows[0] if rows else None


def is_kept(connection: duckdb.DuckDBPyConnection, snapshot: int) -> bool:
    """Whether the lake can still be read at `snapshot`."""
    return bool(query_value(connection, f"SELECT count(*) FROM lake.snapshots() WHERE snapshot_id = {snapshot}"))


class ModelHistory:
    """The days of raw tables that the rows of dbt models are computed from, by the manifest: `meta.dagster.history_days` of each model."""

    def __init__(self, manifest: Mapping[str, Any]):
        self._nodes = {**manifest["nodes"], **manifest["sources"]}
        self._ids = {
            f"{node['schema']}.{node.get('alias') or node['name']}": name
            for name, node in self._nodes.items()
            if node["resource_type"] in ("model", "seed", "snapshot", "source")
        }

    def partition_column(self, table: str) -> str | None:
        """The DATE column by which `table` is partitioned."""
        return self._meta(self._ids[table]).get("partition_column") if table in self._ids else None

    def reads(self, table: str, days: Days | None, snapshot: int) -> dict[str, TableRead]:
        """What the rows of `table` of `days` read of each source, which was as of `snapshot`."""
        return {source: TableRead(of_source, snapshot) for source, of_source in self.raw_days(table, days).items()}

    def raw_days(self, table: str, days: Days | None) -> dict[str, Days | None]:
        """The sources behind the rows of `table` of `days`, each with the days that these rows read; None: all of it."""
        found: dict[str, Days | None] = {}
        if table in self._ids:
            self._collect(self._ids[table], days, found)
        return found

    def _collect(self, name: str, days: Days | None, found: dict[str, Days | None]) -> None:
        node = self._nodes[name]
        if node["resource_type"] == "source":
            table = f"{node['schema']}.{node['name']}"
            known = found.get(table, days)
            found[table] = days.union(known) if days and known else None
            return
        meta = self._meta(name)
        is_incremental = node.get("config", {}).get("materialized") == "incremental"
        for parent in node.get("depends_on", {}).get("nodes", []):
            reads = days if is_incremental and self._meta(parent).get("partition_column") else None
            earlier = meta.get("dagster", {}).get("history_days", 0)
            self._collect(parent, reads and reads.with_earlier(earlier), found)

    def _meta(self, name: str) -> Mapping[str, Any]:
        node = self._nodes.get(name, {})
        return node.get("config", {}).get("meta") or node.get("meta") or {}


def present_partitions(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    windows: Sequence[PartitionWindow],
    days: Days,
    snapshot: int,
) -> set[str]:
    """The keys of those `windows` in `days` of which `table` had rows at `snapshot`."""
    inside = [window for window in windows if window.first <= days.last and days.first <= window.last]
    if not inside:
        return set()
    day = quote(column)
    found = connection.execute(
        f"SELECT DISTINCT CAST({day} AS DATE) FROM {lake_name(table)} AT (VERSION => {snapshot}) "
        f"WHERE {day} >= DATE '{inside[0].first}' AND {day} < DATE '{inside[-1].end}'"
    ).fetchall()
    starts = [window.first for window in inside]
    return {inside[bisect_right(starts, present) - 1].key for (present,) in found}


def key_ranges(windows: Sequence[PartitionWindow], keys: Iterable[str]) -> list[str]:
    """Adjacent `keys` as ranges: "2013-07-01 to 2013-07-31"."""
    wanted, ranges, first, last = set(keys), [], "", ""
    for window in windows:
        if window.key in wanted:
            first, last = first or window.key, window.key
        elif first:
            ranges.append(f"{first} to {last}")
            first = ""
    return [*ranges, f"{first} to {last}"] if first else ranges


def key_of(windows: Sequence[PartitionWindow], day: date) -> str | None:
    """The key of the window that holds `day`."""
    return next((window.key for window in windows if window.first <= day < window.end), None)
