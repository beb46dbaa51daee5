"""Online equals offline: what the online store holds and serves against the point-in-time join of the lake, value by value."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat
from typing import Any

import duckdb

from mlops_assets.feature_store.point_in_time import SelectedView, point_in_time_query
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import column_types
from mlops_assets.online_store.store import FeatureRequest, OnlineStore
from mlops_assets.schema.column_names import internal
from mlops_assets.stages.inputs import SolutionInputs

SAMPLE_ROWS = 500
"""The newest rows of the spine whose entities are compared."""

_ASKED_AT = internal("asked_at")
_NUMBER = internal("number")

_Values = Mapping[str, Any]
"""Feature -> value, of one entity."""


@dataclass(frozen=True)
class ValueDifference:
    """One value that is not the same online and offline."""

    entity: Mapping[str, Any]
    feature: str
    online: Any
    offline: Any

    @property
    def place(self) -> tuple[Any, ...]:
        """What identifies the value."""
        return (*self.entity.values(), self.feature)


@dataclass(frozen=True)
class Comparison:
    """A comparison of entities: how many values of each view the store or the lake has, those that differ, and the flags at `moment`."""

    moment: datetime
    values_of_view: Mapping[str, int]
    differences: Sequence[ValueDifference]
    flags: Mapping[str, int]


def compare_entities(
    connection: duckdb.DuckDBPyConnection,
    store: OnlineStore,
    inputs: SolutionInputs,
    *,
    views: Sequence[SelectedView],
    snapshot: int,
    moment: datetime,
    entities: Sequence[Mapping[str, Any]],
) -> Comparison:
    """Compare the values of `entities` twice: as held, whatever their age, with the event timestamp; and as served at `moment`.

    `moment` is not before the newest event timestamp in the store. What is too old at that moment is null on both sides then, and equal
    whatever the store holds.
    """
    served = store.read([_request(chosen) for chosen in views], entities, moment)
    offline = partial(_offline_values, connection, inputs, snapshot=snapshot, moment=moment, entities=entities)
    ageless = [replace(chosen, view=replace(chosen.view, freshness_days=None)) for chosen in views]
    in_store, in_lake = _held_values(store, views, entities, moment), offline(ageless)
    held_differences = find_differences(entities, in_store, in_lake)
    known = {difference.place for difference in held_differences}
    served_differences = find_differences(entities, [row.values for row in served], offline(views))
    return Comparison(
        moment=moment,
        values_of_view={
            chosen.view.name: len(chosen.features) * sum(map(_has_values, repeat(chosen), in_store, in_lake)) for chosen in views
        },
        differences=[*held_differences, *(difference for difference in served_differences if difference.place not in known)],
        flags=dict(sorted(Counter(f"{name}: {view.flag}" for row in served for name, view in row.views.items()).items())),
    )


def find_differences(
    entities: Sequence[Mapping[str, Any]], online: Sequence[_Values], offline: Sequence[_Values]
) -> list[ValueDifference]:
    """Every value of `online` that differs in type or value; NaN equals NaN, null equals null."""
    return [
        ValueDifference(entity, feature, value, expected[feature])
        for entity, values, expected in zip(entities, online, offline, strict=True)
        for feature, value in values.items()
        if not _same(value, expected[feature])
    ]


def sample_entities(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, views: Sequence[SelectedView], snapshot: int
) -> tuple[list[dict[str, Any]], datetime | None]:
    """The distinct entities of the newest spine rows, in a fixed order, and the newest prediction time (None without rows)."""
    spine = inputs.solution.spine
    keys = list(dict.fromkeys(key for chosen in views for key in chosen.view.entity))
    names = ", ".join(map(quote, keys))
    rows = connection.execute(
        f"SELECT {names}, {quote(spine.prediction_time)} FROM {lake_name(inputs.spine.table)} AT (VERSION => {snapshot}) "
        f"ORDER BY {quote(spine.prediction_time)} DESC, {quote(spine.key)} DESC LIMIT {SAMPLE_ROWS}"
    ).fetchall()
    distinct = dict.fromkeys(row[:-1] for row in rows)
    return [dict(zip(keys, row, strict=True)) for row in distinct], rows[0][-1] if rows else None


def _request(chosen: SelectedView) -> FeatureRequest:
    return FeatureRequest(chosen.view.name, chosen.view.version, chosen.features)


def _held_values(
    store: OnlineStore, views: Sequence[SelectedView], entities: Sequence[Mapping[str, Any]], moment: datetime
) -> list[dict[str, Any]]:
    """The features of each entity in the store, and since when they are known: no value is stale at its own event timestamp."""
    held: list[dict[str, Any]] = [{} for _ in entities]
    for chosen in views:
        name, reader = chosen.view.name, store.reader((_request(chosen),))
        known_since = [row.views[name].event_timestamp for row in reader.read(entities, [moment] * len(entities))]
        rows = reader.read(entities, [since or moment for since in known_since])
        for values, row, since in zip(held, rows, known_since, strict=True):
            values |= row.values
            if chosen.known_since:
                values[chosen.known_since] = since
    return held


def _has_values(chosen: SelectedView, online: _Values, offline: _Values) -> bool:
    """Whether the store or the lake has a row of the view for an entity."""
    names = [chosen.known_since] if chosen.known_since else chosen.features
    return any(values[name] is not None for values in (online, offline) for name in names)


def _offline_values(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    views: Sequence[SelectedView],
    *,
    snapshot: int,
    moment: datetime,
    entities: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The features of each entity at `moment` and since when they are known, from the same join that builds training datasets."""
    keys = list(entities[0])
    types = column_types(connection, f"{lake_name(inputs.spine.table)} AT (VERSION => {snapshot})")
    columns = ", ".join(f"unnest(CAST(${n} AS {types[key]}[])) AS {quote(key)}" for n, key in enumerate(keys, start=1))
    spine = (
        f"SELECT *, TIMESTAMPTZ '{moment.isoformat()}' AS {_ASKED_AT} "
        f"FROM (SELECT unnest(range({len(entities)})) AS {_NUMBER}, {columns})"
    )
    joined = point_in_time_query(
        spine=spine,
        prediction_time=_ASKED_AT,
        views=views,
        first=moment.date(),
        last=moment.date() + timedelta(days=1),
        snapshot=snapshot,
        few_entities=True,
    )
    columns_of_names = {feature: quote(feature) for chosen in views for feature in chosen.features}
    # As the store has them, whatever their type in the lake.
    columns_of_names |= {
        name: f"make_timestamptz(epoch_us({quote(name)}))" for name in filter(None, (c.known_since for c in views))
    }
    rows = connection.execute(
        f"SELECT {', '.join(columns_of_names.values())} FROM ({joined}) ORDER BY {_NUMBER}",
        [[entity[key] for entity in entities] for key in keys],
    ).fetchall()
    return [dict(zip(columns_of_names, row, strict=True)) for row in rows]


def _same(online: Any, offline: Any) -> bool:
    if type(online) is not type(offline):
        return False
    return online == offline or (isinstance(online, float) and math.isnan(online) and math.isnan(offline))
