"""The two engines of the online server, for a small and a large model: the time of one caller, and what eight callers get."""

import http.client
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bundles import Fitted, fit_flights
from figures import record
from online_server import SOLUTION, OnlineServer
from waiting import wait_for

from mlops_assets.ml.pipeline_steps import PipelineStep

SECONDS = 4.0
MODELS = {
    "small, 20 trees": None,
    "large, a network of 16 million weights": PipelineStep(
        "sklearn.neural_network.MLPClassifier", {"hidden_layer_sizes": [4000, 4000], "max_iter": 1}
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_engines(model: str) -> None:
    fitted = fit_flights("binary_classification", estimator=MODELS[model])
    for engine in ("process", "worker"):
        for callers in (1, 8):
            taken = measure(fitted, engine, callers)
            p50, p99 = np.quantile(taken, [0.5, 0.99]) * 1000
            name = f"model {model}, engine {engine}, {callers} callers"
            record(name, ours=len(taken) / SECONDS, unit="requests/s")
            record(f"{name}, p50", ours=p50, unit="ms")
            record(f"{name}, p99", ours=p99, unit="ms")


def measure(fitted: Fitted, engine: str, callers: int) -> list[float]:
    """The seconds of every request of callers that ask again and again."""
    home = Path(tempfile.mkdtemp(prefix="engines.", dir="/tmp"))
    with OnlineServer(home, {1: fitted}, processes=1, engine=engine) as server:
        server.promote(1)
        wait_for(lambda: server.versions() == {1})
        taken: list[float] = []
        began = time.monotonic()

        def call() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.settings.serving_port, timeout=30)
            while (sent := time.monotonic()) < began + SECONDS:
                connection.request("POST", f"/{SOLUTION}/predict", server.row, server.headers)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200
                taken.append(time.monotonic() - sent)

        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    shutil.rmtree(home)
    return taken
