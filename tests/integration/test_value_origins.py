"""Where the values of a prediction came from: on a real lake, whose sources are corrected afterwards."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pytest
from late_inputs import LOAD

from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.operations.partition_windows import partition_windows
from mlops_assets.operations.value_origins import Days, ModelHistory, key_ranges, present_partitions, value_origins

FIRST = date(2020, 1, 1)
REGISTRY = FeatureRegistry(models={}, views={("load", 1): LOAD})


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


WINDOWS = partition_windows([day(number).isoformat() for number in range(40)])


def node(kind: str, schema: str, name: str, **meta: Any) -> dict[str, Any]:
    parents = meta.pop("reads", [])
    materialized = meta.pop("materialized", "incremental")
    return {
        "resource_type": kind,
        "schema": schema,
        "name": name,
        "config": {"materialized": materialized, "meta": meta},
        "depends_on": {"nodes": parents},
    }


HISTORY = ModelHistory(
    {
        "nodes": {
            "staged": node(
                "model", "staging", "visits", partition_column="day", dagster={"history_days": 1}, reads=["visits", "places"]
            ),
            "load": node("model", "features", "load", partition_column="day", dagster={"history_days": 5}, reads=["staged"]),
            "table": node("model", "features", "whole", materialized="table", reads=["visits"]),
        },
        "sources": {
            "visits": node("source", "raw", "visits", partition_column="day"),
            "places": node("source", "raw", "places"),
        },
    }
)


@pytest.fixture(scope="module")
def shared_lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@pytest.fixture
def connection(shared_lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """Thirty days of raw visits but the eighth, and the feature of each day."""
    with shared_lake.connect(read_only=False) as opened:
        for schema in ("features", "raw"):
            opened.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            opened.execute(f"CREATE SCHEMA {schema}")
        days = "CAST(DATE '2020-01-01' + to_days(CAST(i AS INTEGER)) AS DATE) AS day"
        opened.execute(f"CREATE TABLE raw.visits AS SELECT {days} FROM range(30) r(i) WHERE i <> 7")
        opened.execute(
            f"CREATE TABLE features.load AS SELECT 'p' AS place, TIMESTAMPTZ '2020-01-01 06:00:00+00' + to_days(CAST(i AS INTEGER)) AS moment, "
            f"{days}, i AS waiting, true AS open, TIMESTAMPTZ '2020-03-01 00:00:00+00' AS _loaded_at FROM range(30) r(i)"
        )
        yield opened


def batch(connection: duckdb.DuckDBPyConnection, number: int) -> dict[str, Any]:
    """A prediction of the batch from the value of a day, as it is stored."""
    return {
        "place": "p",
        "feature_views": json.dumps({"load": 1}),
        "view_flags": json.dumps({"load": "ok"}),
        "_view_snapshots": None,
        "_source_snapshot": current_snapshot(connection),
        "_load_event_timestamp": datetime(2020, 1, 1, 6, tzinfo=UTC) + timedelta(days=number),
    }


def online(connection: duckdb.DuckDBPyConnection, number: int) -> dict[str, Any]:
    """The same of a server, whose store held the view as of now."""
    values = batch(connection, number)
    return values | {"_source_snapshot": None, "_view_snapshots": json.dumps({"load": values["_source_snapshot"]})}


@pytest.mark.parametrize("predict", [batch, online])
def test_the_row_is_found_as_it_was_when_it_was_read(
    connection: duckdb.DuckDBPyConnection, predict: Callable[[duckdb.DuckDBPyConnection, int], dict[str, Any]]
) -> None:
    values = predict(connection, 10)
    before = value_origins(connection, REGISTRY, values)
    [origin] = before
    assert (origin.partition, origin.loaded_at, origin.flag) == (day(10), datetime(2020, 3, 1, tzinfo=UTC), "ok")
    assert origin.snapshot == current_snapshot(connection)
    connection.execute("UPDATE features.load SET waiting = 100, _loaded_at = now() WHERE day = DATE '2020-01-11'")
    connection.execute("DELETE FROM features.load WHERE day > DATE '2020-01-05'")
    assert value_origins(connection, REGISTRY, values) == before
    # What is predicted now has no such row.
    [now] = value_origins(connection, REGISTRY, predict(connection, 10))
    assert not now.has_row


def test_of_an_expired_snapshot_no_row_is_told_and_the_rest_is(connection: duckdb.DuckDBPyConnection) -> None:
    values = batch(connection, 10)
    expired = values["_source_snapshot"]
    connection.execute("DELETE FROM features.load WHERE day > DATE '2020-01-05'")
    connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{expired}])")
    [origin] = value_origins(connection, REGISTRY, values)
    assert (origin.is_expired, origin.has_row, origin.partition) == (True, False, None)
    assert (origin.snapshot, origin.flag, origin.values_from) == (expired, "ok", values["_load_event_timestamp"])


def test_values_that_came_with_the_request_and_those_that_are_missing_have_no_row(connection: duckdb.DuckDBPyConnection) -> None:
    requested = online(connection, 10) | {
        "_view_snapshots": json.dumps({"load": None}),
        "view_flags": json.dumps({"load": "request"}),
    }
    unknown = online(connection, 10) | {"_load_event_timestamp": None}
    for values in (requested, unknown):
        [origin] = value_origins(connection, REGISTRY, values)
        assert not origin.has_row
        assert origin.partition is None


def test_the_days_behind_a_row_are_those_that_its_models_look_back_to() -> None:
    assert HISTORY.raw_days("features.load", Days(day(10), day(10))) == {"raw.visits": Days(day(4), day(10)), "raw.places": None}
    assert HISTORY.raw_days("features.whole", None) == {"raw.visits": None}
    assert HISTORY.raw_days("features.load", Days(date.min, day(10)))["raw.visits"] == Days(date.min, day(10))


def test_the_partitions_behind_a_row_are_those_that_were_there(connection: duckdb.DuckDBPyConnection) -> None:
    snapshot = current_snapshot(connection)
    days = HISTORY.raw_days("features.load", Days(day(10), day(10)))["raw.visits"]
    assert days is not None

    def ranges(at: int) -> list[str]:
        return key_ranges(WINDOWS, present_partitions(connection, "raw.visits", "day", WINDOWS, days, at))

    assert ranges(snapshot) == ["2020-01-05 to 2020-01-07", "2020-01-09 to 2020-01-11"]
    connection.execute("INSERT INTO raw.visits VALUES (DATE '2020-01-08')")
    assert ranges(snapshot) == ["2020-01-05 to 2020-01-07", "2020-01-09 to 2020-01-11"]
    assert ranges(current_snapshot(connection)) == ["2020-01-05 to 2020-01-11"]
