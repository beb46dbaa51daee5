"""The online server beside bare FastAPI, plain LitServe and MLflow's server with the same model; and 100,000 requests through changes.

Load comes from wrk (Debian: apt-get install wrk), which has the last processor for itself; the servers have the others. Where the
scheduler may choose, a server with idle threads that spin keeps the caller on its own processor, and so saves it from being woken up.
"""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import requests
from bundles import NOON, Fitted, fit_bundle
from feast_environment import show
from figures import compare
from online_server import OnlineServer, flights
from waiting import wait_for

from mlops_assets.local.environment import scripts_directory
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.values import Column, EntityValues, OnlineView

WRK = shutil.which("wrk")
PROCESSORS = frozenset(os.sched_getaffinity(0))
OF_LOAD = frozenset([max(PROCESSORS)])
CONNECTIONS = (1, 16)
ROUNDS, SECONDS = 9, 2

VIEWS = {f"view_{number}": [f"feature_{number}_{feature}" for feature in range(8)] for number in range(5)}
FEATURES = [feature for features in VIEWS.values() for feature in features]
GOALS = {
    ("FastAPI + ONNX", 1): 1.0,
    ("FastAPI + ONNX", 16): 1.0,
    ("the same, one thread", 1): 1.0,
    ("the same, one thread", 16): 1.0,
    ("mlflow models serve", 1): 15.0,
    ("mlflow models serve", 16): 15.0,
}
"""How many times a peer's throughput ours is to have with so many connections."""

REQUESTS = 100_000


@pytest.fixture(autouse=True)
def load_generator() -> None:
    assert WRK is not None, "There is no command wrk, which sends the requests: apt-get install wrk"


@dataclass(frozen=True)
class Measured:
    """What wrk says: requests per second, milliseconds, and answers that are none."""

    requests: int
    per_second: float
    p50: float
    p99: float
    failures: int


@dataclass(frozen=True)
class Target:
    """What wrk asks, and its script."""

    address: str
    script: Path


PEERS = ("FastAPI + ONNX", "the same, one thread", "LitServe, plain", "mlflow models serve")


# The peers keep no prediction, and so survive no power failure.
@pytest.mark.parametrize(("peer", "durability"), [*((peer, "buffered") for peer in PEERS), ("FastAPI + ONNX", "fsync")])
def test_throughput_beside_a_peer(peer: str, durability: str, tmp_path: Path) -> None:
    fitted = fit_wide()
    home = Path(tempfile.mkdtemp(prefix="online.", dir="/tmp"))
    rounds: dict[int, list[tuple[Measured, Measured]]] = defaultdict(list)
    with ExitStack() as servers:
        with on_processors(PROCESSORS - OF_LOAD):
            # One peer at a time: LitServe's worker is busy also while nobody asks.
            server = servers.enter_context(served(home, fitted, durability))
            theirs = servers.enter_context(start_peers(tmp_path, fitted)[peer])
        ours = Target(server.address, lua(home, server.row, server.headers))
        for target in (ours, theirs):
            wrk(target, connections=4, seconds=2)
        # In turn, so that whatever else the machine does is done to both.
        for _ in range(ROUNDS):
            for number in CONNECTIONS:
                rounds[number].append(
                    (wrk(ours, connections=number, seconds=SECONDS), wrk(theirs, connections=number, seconds=SECONDS))
                )
    shutil.rmtree(home)
    ratios = {number: statistics.median(one.per_second / other.per_second for one, other in rounds[number]) for number in rounds}
    for number, measured in rounds.items():
        for name, runs in zip(("ours", peer), zip(*measured, strict=True), strict=True):
            each = sorted(runs, key=lambda one: one.per_second)[ROUNDS // 2]
            show(
                f"{name:>20}, {number:>2} connections: {each.per_second:7.0f} requests/s, p50 {each.p50:7.3f} ms, p99 {each.p99:7.3f} ms"
            )
        ours_rate, their_rate = (statistics.median(one.per_second for one in runs) for runs in zip(*measured, strict=True))
        compare(
            f"online server, MLOPS_DURABILITY={durability}, {number} connections, beside {peer}",
            ours=ours_rate,
            beside=peer,
            theirs=their_rate,
            unit="requests/s",
            at_least=GOALS.get((peer, number)),
        )
    assert [one for measured in rounds.values() for both in measured for one in both if one.failures] == []
    assert [number for number, ratio in ratios.items() if ratio < GOALS.get((peer, number), 0)] == []


def test_a_hundred_thousand_requests_through_five_swaps_and_a_rolling_restart() -> None:
    home = Path(tempfile.mkdtemp(prefix="online.", dir="/tmp"))
    answered = failures = rounds = swaps = 0
    with OnlineServer(home, flights(2)) as server, ThreadPoolExecutor(1) as changes:
        server.promote(1)
        wait_for(lambda: server.versions() == {1})
        target = Target(server.address, lua(home, server.row, server.headers))
        while answered < REQUESTS:
            over = threading.Event()
            changed = changes.submit(change, server, over) if rounds == 0 else None
            measured = wrk(target, connections=16, seconds=40)
            over.set()
            if changed is not None:
                changed.result()
            answered, failures, rounds = answered + measured.requests, failures + measured.failures, rounds + 1
        swaps = server.log().count("serves as champion")
        kept = len({record.prediction_id for record in server.records()})
    shutil.rmtree(home)
    show(f"{answered} requests, {failures} of them without a 2xx answer, {kept} predictions on disk, {swaps} loads of a champion")
    assert failures == 0
    # What wrk no longer waited for at the end of a round was answered and kept too.
    assert answered <= kept <= answered + 16 * rounds


def change(server: OnlineServer, over: threading.Event) -> None:
    """Five hot swaps and one rolling restart, which must not take longer than the load, which is `over` then."""
    for version in (2, 1, 2, 1, 2):
        server.promote(version)
        wait_for(lambda version=version: server.versions() == {version})
        over.wait(1)
    before = server.workers()
    os.kill(server.process.pid, signal.SIGHUP)
    wait_for(lambda: len(server.workers()) == 2 and not server.workers() & before)
    assert not over.is_set(), "the restart took longer than the load"


def start_peers(folder: Path, fitted: Fitted) -> dict[str, AbstractContextManager[Target]]:
    """The peers, which are sent every feature; entered, they answer."""
    import mlflow.sklearn

    (folder / "model.onnx").write_bytes(fitted.model)
    mlflow.sklearn.save_model(
        fitted.pipeline, folder / "mlflow", pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
    values = fitted.sample.rows[0].features
    numeric, categorical = list(values[: len(fitted.schema.numeric)]), list(values[len(fitted.schema.numeric) :])
    row = json.dumps({"numeric": numeric, "categorical": categorical}).encode()
    split = json.dumps({"dataframe_split": {"columns": list(fitted.schema.names), "data": [values]}}).encode()
    peer = [sys.executable, str(Path(__file__).parent / "online_peers.py")]
    serve = [
        str(scripts_directory() / "mlflow"),
        "models",
        "serve",
        "--env-manager",
        "local",
        "--model-uri",
        str(folder / "mlflow"),
    ]
    ports = [free_port() for _ in range(4)]
    return {
        "FastAPI + ONNX": running(
            [*peer, "fastapi", str(folder / "model.onnx"), str(ports[0])], ports[0], "predict", row, folder
        ),
        "the same, one thread": running(
            [*peer, "fastapi", str(folder / "model.onnx"), str(ports[3]), "1"], ports[3], "predict", row, folder
        ),
        "LitServe, plain": running(
            [*peer, "litserve", str(folder / "model.onnx"), str(ports[1])], ports[1], "predict", row, folder
        ),
        # With the pipeline that the ONNX model was exported from.
        "mlflow models serve": running([*serve, "--port", str(ports[2])], ports[2], "invocations", split, folder),
    }


def wrk(target: Target, *, connections: int, seconds: int) -> Measured:
    """One run of wrk."""
    command = [str(WRK), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", str(target.script)]
    with on_processors(OF_LOAD):
        text = subprocess.run([*command, target.address], capture_output=True, text=True, check=True).stdout
    wrong = re.findall(r"Non-2xx or 3xx responses: (\d+)|(?:connect|read|write|timeout) (\d+)", text)
    return Measured(
        requests=int(re.search(r"(\d+) requests in", text).group(1)),  # type: ignore[union-attr]
        per_second=float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),  # type: ignore[union-attr]
        p50=milliseconds(text, "50%"),
        p99=milliseconds(text, "99%"),
        failures=sum(int(number) for pair in wrong for number in pair if number),
    )


def milliseconds(text: str, percentile: str) -> float:
    """A latency in wrk's report."""
    found = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", text)
    assert found is not None, text
    return float(found.group(1)) * {"us": 1e-3, "ms": 1, "s": 1e3}[found.group(2)]


def lua(folder: Path, body: bytes, headers: dict[str, str]) -> Path:
    """wrk's script of one request."""
    path = folder / f"{zlib.crc32(body)}.lua"
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    path.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = [=[{body.decode()}]=]", *lines]))
    return path


@contextmanager
def on_processors(processors: Set[int]) -> Iterator[None]:
    """What is started meanwhile runs on `processors` alone."""
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, PROCESSORS)


@contextmanager
def running(command: list[str], port: int, path: str, body: bytes, folder: Path) -> Iterator[Target]:
    """A server while it answers; it is killed with what it started."""
    address, headers, log = f"http://127.0.0.1:{port}/{path}", {"Content-Type": "application/json"}, folder / f"{port}.log"
    with log.open("wb") as output:
        # MLflow starts the command `uvicorn`.
        environment = os.environ | {"PATH": os.pathsep.join([str(scripts_directory()), os.environ["PATH"]])}
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, env=environment)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    answer = requests.post(address, data=body, headers=headers, timeout=10)
                    assert answer.ok, answer.text
                    break
                except requests.ConnectionError:
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.2)
            yield Target(address, lua(folder, body, headers))
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextmanager
def served(home: Path, fitted: Fitted, durability: str) -> Iterator[OnlineServer]:
    """The online server in one process, with the wide model and its views."""
    server = OnlineServer(home, {1: fitted}, processes=1, durability=durability)
    store = LmdbStore(server.settings.online_store_directory)
    since = int(NOON.timestamp() * 1e6) - 3_600_000_000
    chance = np.random.default_rng(0)
    for name, features in VIEWS.items():
        view = OnlineView(
            name=name,
            version=1,
            entity=(Column("tailnum", "string"),),
            features=tuple(Column(feature, "float") for feature in features),
            timed=True,
            freshness_days=7,
        )
        written = [
            EntityValues((f"N{number}",), since, tuple(chance.normal(size=len(features)).tolist())) for number in range(5000)
        ]
        store.push(view, source=f"features.{name}", snapshot=1, base=None, written=written, removed=[])
    server.promote(1)
    with server:
        wait_for(lambda: server.versions() == {1})
        yield server


def fit_wide() -> Fitted:
    """A model as large as that of a real solution: 42 numeric and 2 categorical features, 150 trees."""
    chance, rows = np.random.default_rng(0), 5000
    columns: dict[str, Any] = {feature: chance.normal(size=rows) for feature in FEATURES}
    columns |= {"distance": chance.integers(100, 3000, rows), "minute": chance.integers(300, 1400, rows)}
    columns |= {"carrier": chance.choice(["AA", "UA", "B6", "DL"], rows), "origin": chance.choice(["EWR", "JFK", "LGA"], rows)}
    table = pa.table(columns)
    labels = (columns[FEATURES[0]] + columns[FEATURES[9]] + columns["distance"] / 1000 + chance.normal(size=rows) > 2).astype(
        np.int64
    )
    request = {"flight_id": "f1", "predicted_at": NOON.isoformat(), "tailnum": "N77", "carrier": "AA", "origin": "JFK"}
    return fit_bundle(
        table,
        labels,
        schema=FeatureSchema(numeric=("distance", "minute", *FEATURES), categorical=("carrier", "origin")),
        problem="binary_classification",
        estimator=PipelineStep("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 150, "max_leaf_nodes": 31}),
        requests=[request | {"distance": 500, "minute": 600}],
        name="flights",
        key={"name": "flight_id", "type": "varchar"},
        entity_keys=[{"name": "tailnum", "type": "varchar"}],
        partition_column="flight_date",
        feature_views=[
            {"name": name, "version": 1, "entity": ["tailnum"], "features": features, "online": True}
            for name, features in VIEWS.items()
        ],
        request_columns=[
            {"name": "carrier", "type": "varchar"},
            {"name": "origin", "type": "varchar"},
            {"name": "distance", "type": "integer"},
            {"name": "minute", "type": "integer"},
        ],
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
