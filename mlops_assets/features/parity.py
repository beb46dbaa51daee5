"""Online equals offline: the values the online store serves against the point-in-time join of the lake, one by one."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.keys import ONLINE_FEATURES
from mlops_assets.feature_store.point_in_time import SelectedView, point_in_time_query
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types
from mlops_assets.online_store.store import FeatureRequest, OnlineRow, OnlineStore
from mlops_assets.online_store.values import ViewState
from mlops_assets.schema.column_names import internal
from mlops_assets.stages.inputs import SolutionInputs

SAMPLE_ROWS = 500
"""The newest rows of the spine whose entities are compared."""

_SHOWN_DIFFERENCES = 20
_ASKED_AT = internal("asked_at")
_NUMBER = internal("number")


@dataclass(frozen=True)
class ValueDifference:
    """One value that is not the same online and offline."""

    entity: Mapping[str, Any]
    feature: str
    online: Any
    offline: Any


def check_parity(
    connection: duckdb.DuckDBPyConnection,
    store: OnlineStore,
    inputs: SolutionInputs,
    *,
    views: Sequence[SelectedView],
    states: Sequence[ViewState],
) -> dg.AssetCheckResult:
    """Compare the online views of a solution for the entities of its newest spine rows, at the newest moment in the store.

    Both sides are read as of the snapshot of `states`, the store's. Views that reflect different snapshots cannot be compared, and fail.
    """
    snapshots = {state.snapshot for state in states}
    snapshot = snapshots.pop() if len(snapshots) == 1 else None
    compared, differences, flags, moment, entities = 0, list[ValueDifference](), Counter[str](), None, list[dict[str, Any]]()
    if snapshot is not None:
        entities, newest_prediction = sample_entities(connection, inputs, views, snapshot)
        newest = max((state.newest for state in states if state.newest is not None), default=None)
        moment = newest_prediction if newest is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest)
    if entities and moment is not None and snapshot is not None:
        requests = [FeatureRequest(chosen.view.name, chosen.view.version, chosen.features) for chosen in views]
        online = store.read(requests, entities, moment)
        offline = _offline_values(connection, inputs, views, snapshot=snapshot, moment=moment, entities=entities)
        differences = find_differences(entities, online, offline)
        compared = sum(len(row) for row in offline)
        flags.update(f"{name}: {view.flag}" for row in online for name, view in row.views.items())
    return check_rules.ONLINE_OFFLINE_PARITY.result(
        inputs.key(ONLINE_FEATURES),
        # A solution whose features all come with the request has nothing to compare; any other must have compared something.
        passed=not differences and (compared > 0 or not views),
        metadata={
            "compared_values": compared,
            "entities": len(entities),
            "differences": len(differences),
            "maximum_differences": 0,
            "moment": dg.MetadataValue.timestamp(moment) if moment else dg.MetadataValue.null(),
            "lake_snapshot": snapshot if snapshot is not None else dg.MetadataValue.null(),
            "flags": dg.MetadataValue.json(dict(sorted(flags.items()))),
            "first_differences": _table(differences[:_SHOWN_DIFFERENCES]),
            **({} if compared or not views else {"no_examples": "Nothing was compared."}),
        },
        description=_describe(compared, differences, views),
    )


def find_differences(
    entities: Sequence[Mapping[str, Any]], online: Sequence[OnlineRow], offline: Sequence[Mapping[str, Any]]
) -> list[ValueDifference]:
    """Every value that differs in type or value; NaN equals NaN, null equals null."""
    return [
        ValueDifference(entity, feature, row.values[feature], expected)
        for entity, row, features in zip(entities, online, offline, strict=True)
        for feature, expected in features.items()
        if not _same(row.values[feature], expected)
    ]


def sample_entities(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, views: Sequence[SelectedView], snapshot: int
) -> tuple[list[dict[str, Any]], datetime | None]:
    """The distinct entities of the newest spine rows, in a fixed order, and the newest prediction time (None without rows)."""
    spine = inputs.solution.spine
    keys = list(dict.fromkeys(key for chosen in views for key in chosen.view.entity))
    names = ", ".join(map(quote, keys))
    rows = connection.execute(
        f"SELECT {names}, {quote(spine.prediction_time)} FROM lake.{inputs.spine.table} AT (VERSION => {snapshot}) "
        f"ORDER BY {quote(spine.prediction_time)} DESC, {quote(spine.key)} DESC LIMIT {SAMPLE_ROWS}"
    ).fetchall()
    distinct = dict.fromkeys(row[:-1] for row in rows)
    return [dict(zip(keys, row, strict=True)) for row in distinct], rows[0][-1] if rows else None


def _offline_values(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    views: Sequence[SelectedView],
    *,
    snapshot: int,
    moment: datetime,
    entities: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The features of each entity at `moment`, from the same join that builds training datasets."""
    keys = list(entities[0])
    types = column_types(connection, f"lake.{inputs.spine.table} AT (VERSION => {snapshot})")
    columns = ", ".join(f"unnest(CAST(? AS {types[key]}[])) AS {quote(key)}" for key in keys)
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
    )
    features = [feature for chosen in views for feature in chosen.features]
    rows = connection.execute(
        f"SELECT {', '.join(map(quote, features))} FROM ({joined}) ORDER BY {_NUMBER}",
        [[entity[key] for entity in entities] for key in keys],
    ).fetchall()
    return [dict(zip(features, row, strict=True)) for row in rows]


def _same(online: Any, offline: Any) -> bool:
    if type(online) is not type(offline):
        return False
    return online == offline or (isinstance(online, float) and math.isnan(online) and math.isnan(offline))


def _describe(compared: int, differences: Sequence[ValueDifference], views: Sequence[SelectedView]) -> str:
    if not views:
        return "every feature comes with the request: nothing to compare"
    if not compared:
        return "nothing was compared: the spine or the online store is empty"
    if differences:
        return f"{len(differences)} of {compared} values differ: run online_features with `rebuild: true` to push every view anew"
    return f"{compared} values are the same online and offline"


def _table(differences: Sequence[ValueDifference]) -> dg.TableMetadataValue:
    names = ("entity", "feature", "online", "offline")
    records = [
        dg.TableRecord(
            {
                "entity": ", ".join(f"{key}={value!r}" for key, value in difference.entity.items()),
                "feature": difference.feature,
                "online": repr(difference.online),
                "offline": repr(difference.offline),
            }
        )
        for difference in differences
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in names]))
