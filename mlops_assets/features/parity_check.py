"""The check `online_offline_parity`: a comparison of the online store with the lake, with its evidence and the remedy of a failure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.keys import ONLINE_FEATURES
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.features.parity import ValueDifference, compare_entities, sample_entities
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.online_store.values import ViewState
from mlops_assets.stages.inputs import SolutionInputs

_SHOWN_DIFFERENCES = 20


def check_parity(
    connection: duckdb.DuckDBPyConnection,
    store: OnlineStore,
    inputs: SolutionInputs,
    *,
    views: Sequence[SelectedView],
    states: Sequence[ViewState],
    snapshot: int,
) -> dg.AssetCheckResult:
    """Compare the online views of a solution for the entities of its newest spine rows.

    `states` are those of the views in the store, pushed as of the lake's `snapshot`. A comparison in which neither side has a value of any
    entity proves nothing, and fails.
    """
    entities, newest_prediction = sample_entities(connection, inputs, views, snapshot) if views else ([], None)
    comparison = None
    if newest_prediction is not None:
        newest = max((state.newest for state in states if state.newest is not None), default=None)
        moment = newest_prediction if newest is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest)
        comparison = compare_entities(connection, store, inputs, views=views, snapshot=snapshot, moment=moment, entities=entities)
    values = comparison.values_of_view if comparison else {}
    differences = comparison.differences if comparison else []
    compared = sum(values.values())
    return check_rules.ONLINE_OFFLINE_PARITY.result(
        inputs.key(ONLINE_FEATURES),
        # A solution whose features all come with the request has nothing to compare; any other must have compared something.
        passed=not differences and (compared > 0 or not views),
        metadata={
            "compared_values": compared,
            "values_of_view": dg.MetadataValue.json(dict(values)),
            "entities": len(entities),
            "differences": len(differences),
            "maximum_differences": 0,
            "moment": dg.MetadataValue.timestamp(comparison.moment) if comparison else dg.MetadataValue.null(),
            "lake_snapshot": snapshot,
            "flags": dg.MetadataValue.json(dict(comparison.flags) if comparison else {}),
            "first_differences": _table(differences[:_SHOWN_DIFFERENCES]),
            **({} if compared or not views else {"no_examples": "Nothing was compared."}),
        },
        description=_describe(inputs, values, differences, entities=len(entities))
        if views
        else "every feature comes with the request",
    )


def _describe(
    inputs: SolutionInputs, values_of_view: Mapping[str, int], differences: Sequence[ValueDifference], *, entities: int
) -> str:
    compared = sum(values_of_view.values())
    if differences:
        return f"{len(differences)} of {compared} values differ: run online_features with `rebuild: true` to push every view anew"
    if not entities:
        return f"nothing was compared: {inputs.spine.table} has no rows. Materialize {inputs.spine_key.to_user_string()} first"
    if not compared:
        return (
            f"nothing was compared: neither the online store nor the lake has values of the {entities} entities of the newest rows. "
            f"Materialize {', '.join(values_of_view)}, and compare their keys with those of {inputs.spine.table}"
        )
    empty = [view for view, values in values_of_view.items() if not values]
    return f"{compared} values are the same online and offline" + (
        f"; neither has values of these entities in {', '.join(empty)}" if empty else ""
    )


def _table(differences: Sequence[ValueDifference]) -> dg.TableMetadataValue:
    names = ("entity", "feature", "online", "offline")
    records = [
        dg.TableRecord(
            {
                "entity": ", ".join(f"{key}={value!r}" for key, value in difference.entity.items()),
                "feature": difference.feature,
                "online": _show(difference.online),
                "offline": _show(difference.offline),
            }
        )
        for difference in differences
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in names]))


def _show(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
