"""A model without ONNX form in batch and stream: the bundle's skops file answers as the fitted pipeline, and holds no type unasked."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bundles import NOON, WITHOUT_ONNX, Fitted, fit_flights, load, push_planes

from mlops_assets.clients.signatures import Signer
from mlops_assets.clients.trusted_types import trusted_types
from mlops_assets.ml.matrix import to_frame
from mlops_assets.ml.onnx import measure_parity
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.skops_model import dump_pipeline, load_skops
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.bundle import BundleError, file_hash, write_bundle
from mlops_assets.serving.live import LiveChampions, Model


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_flights("multiclass_classification", estimator=WITHOUT_ONNX)


def rows() -> pa.Table:
    return pa.table(
        {
            "distance": [500, None, 2900], "is_far": [False, None, True], "mean_delay": [0.5, None, -3.0], "flights": [3, 4, 49],
            "carrier": ["AA", None, "never seen"], "home": ["EWR", "JFK", None],
        }
    )  # fmt: skip


def test_the_batch_scores_from_the_skops_file(fitted: Fitted, tmp_path: Path) -> None:
    bundle = load(fitted.write(tmp_path / "flights" / "1"))
    assert sorted(path.name for path in bundle.path.iterdir()) == ["contract.json", "model.skops", "sample.json"]
    scored = bundle.score(rows())
    expected = fitted.pipeline.predict_proba(to_frame(rows(), fitted.schema))
    assert np.allclose(np.array(scored["probabilities"].to_pylist()), expected, atol=1e-6)
    assert scored["predicted_label"].to_pylist() == [fitted.contract.classes[position] for position in expected.argmax(axis=1)]


def test_what_serves_is_compared_with_the_fitted_pipeline(fitted: Fitted) -> None:
    served = load_skops(fitted.model, fitted.contract.trusted_types, fitted.schema, fitted.contract.problem)
    compared = measure_parity(fitted.pipeline, served, to_frame(rows(), fitted.schema), fitted.schema, fitted.contract.problem)
    assert compared.largest_difference < 1e-6


def test_the_stream_answers_from_the_skops_file_in_its_own_process(fitted: Fitted, tmp_path: Path) -> None:
    store, signer = LmdbStore(tmp_path / "store"), Signer(tmp_path / "key")
    push_planes(store)
    model = Model.load(fitted.deploy(tmp_path / "flights" / "1", signer), store, signer, Serving(), None)
    assert (model.engine.engine, model.remote) == ("worker", None)
    row = model.decoder.decode_row(
        b'{"flight_id": "f", "tailnum": "N1", "carrier": "AA", "distance": 500, "predicted_at": "%s"}'
        % NOON.isoformat().encode(),
        datetime.now(UTC),
    )
    [scored] = LiveChampions(model, ()).score([row])
    assert scored.outputs.score == max(scored.outputs.probabilities or [])


def test_a_type_that_the_contract_does_not_name_is_not_restored(tmp_path: Path) -> None:
    library = fit_flights("binary_classification", estimator=PipelineStep("lightgbm.LGBMClassifier", {"n_estimators": 2}))
    content = dump_pipeline(library.pipeline)
    changes = {"model_format": "skops", "no_onnx": "a test", "model_sha256": file_hash(content)}
    trusted = trusted_types(library.pipeline)
    contract = library.contract.model_copy(update={**changes, "trusted_types": trusted})
    write_bundle(tmp_path / "flights" / "1", content, library.sample, contract)
    load(tmp_path / "flights" / "1")
    write_bundle(tmp_path / "flights" / "2", content, library.sample, contract.model_copy(update={"trusted_types": trusted[:1]}))
    with pytest.raises(BundleError, match=r"it holds types that its contract does not name: lightgbm.basic.Booster"):
        load(tmp_path / "flights" / "2")
