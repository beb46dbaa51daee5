"""Models in workers of LitServe: one without ONNX form, a worker that is killed, one that is too slow, and the end of a server."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from bundles import WITHOUT_ONNX, fit_flights
from online_server import SOLUTION, OnlineServer, kill, load
from waiting import wait_for

from mlops_assets.ml.matrix import MISSING_CATEGORY
from mlops_assets.ml.skops_model import dump_pipeline, load_skops
from mlops_assets.schema.solution import Serving, Worker
from mlops_assets.serving.active import write_options

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[OnlineServer]:
    home = Path(tempfile.mkdtemp(prefix="workers.", dir="/tmp"))
    versions = {1: fit_flights("binary_classification", version=1, estimator=WITHOUT_ONNX)}
    with OnlineServer(home, versions, processes=1) as server:
        server.fitted = versions[1]  # type: ignore[attr-defined]
        server.promote(1)
        wait_for(lambda: server.versions() == {1})
        yield server
    shutil.rmtree(home)


def test_a_model_without_onnx_form_answers_as_the_fitted_estimator_and_is_logged(server: OnlineServer) -> None:
    fitted = server.fitted  # type: ignore[attr-defined]
    assert (server.folder / "1" / "model.skops").exists()
    rows = [row.request | {"request_id": f"r{number}"} for number, row in enumerate(fitted.sample.rows)]
    answers = server.post(json.dumps(rows).encode()).json()
    logged = {record.prediction_id: record for record in server.records()}
    for answer in answers:
        features = logged[answer["prediction_id"]].features
        numeric = np.array([[features[name] for name in fitted.schema.numeric]], dtype=np.float32)
        texts = np.array([[features[name] or MISSING_CATEGORY for name in fitted.schema.categorical]], dtype=object)
        model = load_skops(dump_pipeline(fitted.pipeline), fitted.contract.trusted_types, fitted.schema, "binary_classification")
        assert answer["score"] == pytest.approx(float(model.predict(numeric, texts)[0, 1]), abs=1e-6)
    model = server.get(f"/{SOLUTION}/model").json()
    assert model["engine"] == "worker"
    assert "LabelPropagation cannot be exported to ONNX" in model["engine_reason"]
    wrong = server.post(json.dumps(rows[0] | {"distance": "far"}).encode())
    assert (wrong.status_code, wrong.json()["field"]) == (422, "distance")
    [answering] = server.workers()
    loaded = {Path(file.path).parts[-2] for file in psutil.Process(answering).memory_maps() if ".so" in file.path}
    assert not {"tree", "linear_model"} & loaded, "scikit-learn is loaded by the workers alone"


def test_a_killed_worker_is_replaced_and_no_request_is_lost(server: OnlineServer) -> None:
    before = server.model_workers()
    write_options(server.folder, Serving(worker=Worker(timeout_seconds=60)))
    # Workers of its own for the changed options; those before it end when no request can need them any more.
    wait_for(lambda: len(server.model_workers() - before) == 1 and not server.model_workers() & before)
    [killed] = server.model_workers()
    with load(server, callers=3, patience=60) as found:
        wait_for(lambda: found.answered > 5)
        kill(killed)
        answered = found.answered
        wait_for(lambda: found.answered > answered + 20)
    assert (set(found.statuses), found.errors) == ({200}, [])
    assert server.model_workers() - {killed}
    kept = [record.prediction_id for record in server.records()]
    assert len(kept) == len(set(kept))
    assert set(kept) >= set(found.prediction_ids)


def test_what_takes_too_long_is_answered_in_time_with_the_advice_to_come_back(server: OnlineServer) -> None:
    write_options(server.folder, Serving(worker=Worker(timeout_seconds=0.0001)))
    wait_for(lambda: server.post(server.row).status_code == 504)
    late = server.post(server.row)
    assert (late.status_code, late.headers["retry-after"]) == (504, "1")
    write_options(server.folder, Serving())
    wait_for(lambda: server.post(server.row).status_code == 200)


def test_workers_end_with_the_server_and_with_their_version(server: OnlineServer) -> None:
    workers = server.model_workers()
    for pid in server.workers():
        kill(pid)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers))
