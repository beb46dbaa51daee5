"""The stream scorer from event to prediction: how many a second, how late at 1,000 a second, beside a process that only passes events on."""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bundles import NOON, fit_bundle
from figures import compare, record
from nats_server import NatsServer

from mlops_assets.clients.event_flow import open_flow
from mlops_assets.clients.event_stream import PREDICTIONS, REQUESTS, EventStream, subject
from mlops_assets.clients.publishing import Message
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.values import Column, EntityValues, OnlineView
from mlops_assets.serving.active import CHAMPION_LINK, activate

SOLUTION = "wide"
VIEWS = {f"view_{number}": [f"feature_{number}_{feature}" for feature in range(6)] for number in range(6)}
ENTITIES = 5000
EVENTS = 30_000
RATE, RATE_SECONDS = 1000, 15
PATIENCE_SECONDS = 120
THROUGHPUT_GOAL = 5000.0
P99_GOAL = 0.050


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A state folder with a model as large as that of the bundled solutions: 6 views, 40 features, 150 trees of 31 leaves."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        chance = np.random.default_rng(0)
        names = [name for features in VIEWS.values() for name in features]
        request = ["distance", "minute", "weekday", "duration"]
        table = pa.table({name: chance.normal(size=20_000) for name in [*request, *names]})
        labels = (table["distance"].to_numpy() + table["feature_0_0"].to_numpy() > 0).astype(np.int64)
        parameters = {"max_iter": 150, "max_leaf_nodes": 31}
        fitted = fit_bundle(
            table,
            labels,
            schema=FeatureSchema(numeric=(*request, *names), categorical=()),
            problem="binary_classification",
            estimator=PipelineStep("sklearn.ensemble.HistGradientBoostingClassifier", parameters),
            requests=[json.loads(event(number)) for number in range(5)],
            name=SOLUTION,
            entity_keys=[{"name": "entity", "type": "varchar"}],
            request_columns=[{"name": name, "type": "double"} for name in request],
            feature_views=[
                {"name": name, "version": 1, "entity": ["entity"], "features": features, "online": True}
                for name, features in VIEWS.items()
            ],
        )
        activate(fitted.deploy(settings.serving_directory / SOLUTION / "1", Signer(settings.signing_key_file)), CHAMPION_LINK)
        store, known = LmdbStore(settings.online_store_directory), int(NOON.timestamp() * 1e6) - 1
        for name, features in VIEWS.items():
            view = OnlineView(
                name=name,
                version=1,
                entity=(Column("entity", "string"),),
                features=tuple(Column(feature, "float") for feature in features),
                timed=True,
                freshness_days=7,
            )
            values = [EntityValues((f"e{number}",), known, tuple(chance.normal(size=6).tolist())) for number in range(ENTITIES)]
            store.push(view, source="benchmark", snapshot=1, base=None, written=values, removed=[])
        yield settings.home


@pytest.fixture(params=["fsync", "buffered"])
def nats(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", durability=request.param)
    server.start()
    yield server
    server.kill()


def event(number: int) -> bytes:
    chance = random.Random(number)
    columns = {name: chance.gauss(0, 1) for name in ("distance", "minute", "weekday", "duration")}
    return json.dumps(
        {"id": f"k{number}", "entity": f"e{chance.randrange(ENTITIES)}", "predicted_at": NOON.isoformat(), **columns}
    ).encode()


async def publish(stream: EventStream, first: int, count: int) -> None:
    for start in range(first, first + count, 500):
        numbers = range(start, min(start + 500, first + count))
        await stream.publish([Message(subject(REQUESTS, SOLUTION), f"r{number}", event(number)) for number in numbers])


@contextmanager
def scorer(nats: NatsServer, home: Path, *arguments: str) -> Iterator[None]:
    environment = os.environ | {"MLOPS_HOME": str(home), "MLOPS_NATS_URL": nats.url}
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def seconds_for(nats: NatsServer, home: Path, *arguments: str) -> float:
    """From the first answer on, how long the process takes for an event, all `EVENTS` waiting when it starts."""

    async def measure(stream: EventStream) -> float:
        before = (await stream.jetstream.stream_info(PREDICTIONS)).state.messages
        await publish(stream, before * 2, EVENTS)
        deadline = time.perf_counter() + PATIENCE_SECONDS
        with scorer(nats, home, *arguments):
            first: tuple[float, int] | None = None
            while time.perf_counter() < deadline:
                answered = (await stream.jetstream.stream_info(PREDICTIONS)).state.messages - before
                now = time.perf_counter()
                if answered and first is None:
                    first = (now, answered)
                if answered == EVENTS:
                    assert first is not None
                    return (now - first[0]) / (answered - first[1])
                await asyncio.sleep(0.02)
        raise TimeoutError(f"{answered} of {EVENTS} events answered")

    return nats.run(measure)


def test_predictions_a_second_beside_passing_events_on(nats: NatsServer, home: Path) -> None:
    passing = 1 / seconds_for(nats, home, str(Path(__file__).with_name("passing_on.py")), SOLUTION)
    scoring = 1 / seconds_for(nats, home, "-m", "mlops_assets.serving.stream")
    durability = f"MLOPS_DURABILITY={nats.settings.durability}"
    compare(
        f"waiting events to stored predictions, {durability}",
        ours=scoring,
        beside="passed on without a model",
        theirs=passing,
        unit="events/s",
    )
    assert record(
        f"waiting events to stored predictions, {durability}, rate", ours=scoring, unit="events/s", at_least=THROUGHPUT_GOAL
    )


def test_how_late_predictions_are_at_a_steady_rate(nats: NatsServer, home: Path) -> None:
    async def measure(stream: EventStream) -> list[float]:
        sent: dict[str, float] = {}
        late: list[float] = []

        async def send() -> None:
            began = time.perf_counter()
            for number in range(RATE * RATE_SECONDS):
                await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
                sent[f"k{number}"] = time.perf_counter()
                await stream.client.publish(subject(REQUESTS, SOLUTION), event(number))

        async with open_flow(stream, PREDICTIONS, SOLUTION, durable="reader", acknowledge_seconds=60, ahead=1000) as flow:
            await stream.publish([Message(subject(REQUESTS, SOLUTION), "first", event(-1))])
            assert await flow.take(minimum=1, maximum=1, wait_seconds=60)
            sending = asyncio.create_task(send())
            while len(late) < RATE * RATE_SECONDS:
                for message in await flow.take(minimum=1, maximum=1000, wait_seconds=5):
                    late.append(time.perf_counter() - sent[json.loads(message.data)["key"]])
            await sending
        return late

    with scorer(nats, home, "-m", "mlops_assets.serving.stream"):
        late = sorted(nats.run(measure))
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    durability = f"MLOPS_DURABILITY={nats.settings.durability}"
    record(f"event to prediction at {RATE:,} events/s, {durability}, p50", ours=p50 * 1e3, unit="ms")
    assert record(
        f"event to prediction at {RATE:,} events/s, {durability}, p99", ours=p99 * 1e3, unit="ms", at_most=P99_GOAL * 1e3
    )
