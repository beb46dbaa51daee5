"""Serving bundles for tests: a contract with few words, and small models fitted on made rows."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from mlops_assets.clients.bundle_record import (
    ACCEPTANCE_TAG,
    BundleRecord,
    Precision,
    TrainingIdentity,
    folder_files,
    write_record,
)
from mlops_assets.clients.signatures import Signer
from mlops_assets.clients.trusted_types import trusted_types
from mlops_assets.ml.matrix import FeatureSchema, categorical_matrix, exact_matrix, to_frame
from mlops_assets.ml.onnx import NoOnnxFormError, to_onnx
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline, predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.skops_model import dump_pipeline
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.online_store.values import Column, EntityValues, OnlineView
from mlops_assets.schema.problem import Problem
from mlops_assets.serving.bundle import Bundle, file_hash, write_bundle
from mlops_assets.serving.bundle_loading import load_bundle
from mlops_assets.serving.contract import BaseVersion, Contract, describe_features
from mlops_assets.serving.recalibrated_model import recalibrate_bundle
from mlops_assets.serving.sample import Sample, SampleRow

NOON = datetime(2020, 1, 10, 12, tzinfo=UTC)

PLANES = ("N1", "N2", "N3", "N4")
VIEW_COLUMNS = {"mean_delay": "float", "flights": "integer", "home": "string"}
_REQUEST = {"carrier": "varchar", "distance": "integer"}


def contract(**changes: Any) -> Contract:
    """A contract of a regression with the feature `a`; `changes` replace fields."""
    fields: dict[str, Any] = {
        "name": "example",
        "version": 1,
        "problem": "regression",
        "features": [{"name": "a", "type": "double", "minimum": 0, "maximum": 1}],
        "key": {"name": "id", "type": "varchar"},
        "entity_keys": [],
        "prediction_time_column": "predicted_at",
        "partition_column": "day",
        "time_zone": "UTC",
        "classes": [],
        "decision_threshold": None,
        "dataset_fingerprint": "0",
        "feature_views": [],
        "model_sha256": "0" * 64,
        "sample_sha256": "0" * 64,
        "run_id": "0",
    }
    return Contract.model_validate(fields | changes)


def load(path: Path) -> Bundle:
    """The bundle in the folder `path` as it is."""
    return load_bundle(path, folder_files(path))


def record_of(solution: str, version: int, **changes: Any) -> BundleRecord:
    """The record of a version whose bundle predicts exactly what its model does; `changes` replace fields."""
    training = TrainingIdentity(training_date=date(2020, 3, 1), dataset_fingerprint="0", configuration_hash="0", segment=None)
    precision = Precision(rows=100, largest_difference=0.0, float32_changed=0.0, float32_mean_change=0.0)
    record = BundleRecord(
        solution=solution,
        version=version,
        run_id=f"run-{version}",
        training=training,
        precision=precision,
        files={"model.onnx": "0"},
    )
    return replace(record, **changes)


def sign_record(path: Path, signer: Signer, engine: str = "process") -> None:
    """Put the record of an accepted version beside the bundle in the folder `<solution>/<version>`."""
    record = record_of(path.parent.name, int(path.name), files=folder_files(path), engine=engine, engine_reason="a test")
    write_record(path, record, record.sign(signer, "accepted")[ACCEPTANCE_TAG])


class _Unasked:
    """A model of which only contract and sample are read."""

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True)
class Fitted:
    """A model of made rows with the bundle's three parts."""

    pipeline: Any
    schema: FeatureSchema
    model: bytes
    sample: Sample
    contract: Contract

    def recalibrate(self, base: BaseVersion, version: int) -> "Fitted":
        """The same model, recalibrated by `base`, as the bundle of another version."""
        bundle = Bundle(Path(), self.contract, self.sample, _Unasked())
        recalibrated = recalibrate_bundle(bundle, base, version=version)
        return dataclasses.replace(self, sample=recalibrated.sample, contract=recalibrated.contract)

    def write(self, path: Path) -> Path:
        """Write the bundle to the folder `path`."""
        write_bundle(path, self.model, self.sample, self.contract)
        return path

    def deploy(self, path: Path, signer: Signer, engine: str = "process") -> Path:
        """Write the bundle to the folder `<solution>/<version>`, with the record of a version that passed its gates."""
        sign_record(self.write(path), signer, engine)
        return path


def boosting(problem: Problem) -> PipelineStep:
    """A small gradient boosting."""
    kind = "Regressor" if problem == "regression" else "Classifier"
    return PipelineStep(f"sklearn.ensemble.HistGradientBoosting{kind}", {"max_iter": 20})


def fit_bundle(
    table: pa.Table,
    labels: np.ndarray,
    *,
    schema: FeatureSchema,
    problem: Problem,
    estimator: PipelineStep,
    requests: Sequence[dict[str, Any]],
    **changes: Any,
) -> Fitted:
    """Fit a model on `table`. Its sample are the first rows, as many as there are `requests`; `changes` are fields of the contract."""
    pipeline = build_pipeline(problem=problem, schema=schema, estimator=estimator, numeric=None, categorical=None, seed=0)
    frame = to_frame(table, schema)
    fit_pipeline(pipeline, frame, labels)
    form: dict[str, Any] = {}
    try:
        model = to_onnx(pipeline, schema, problem)
    except NoOnnxFormError as error:
        model = dump_pipeline(pipeline)
        form = {"model_format": "skops", "no_onnx": str(error), "trusted_types": trusted_types(pipeline)}
    answers = np.asarray(predict(pipeline, frame.head(len(requests)), problem)).reshape(len(requests), -1)
    first = table.slice(0, len(requests))
    rows = np.hstack([exact_matrix(first, schema.numeric).astype(object), categorical_matrix(first, schema.categorical)]).tolist()
    sample = Sample(
        maximum_difference=1e-4,
        rows=tuple(
            SampleRow(request=request, features=tuple(None if value != value else value for value in row), answer=tuple(answer))
            for request, row, answer in zip(requests, rows, answers.tolist(), strict=True)
        ),
    )
    fields = {
        "problem": problem,
        "features": describe_features(table, schema),
        "classes": [] if problem == "regression" else pipeline.classes_.tolist(),
        "decision_threshold": 0.35 if problem == "binary_classification" else None,
        "origins": schema.origins,
        "model_sha256": file_hash(model),
        "sample_sha256": file_hash(sample.to_bytes()),
        **form,
    }
    described = contract(**fields | changes)
    return Fitted(pipeline, schema, model, sample, described)


WITHOUT_ONNX = PipelineStep("sklearn.semi_supervised.LabelPropagation", {})
"""A classifier that ONNX cannot express."""


def fit_flights(
    problem: Problem, version: int = 1, seed: int = 0, name: str = "flights", estimator: PipelineStep | None = None
) -> Fitted:
    """A model with request columns, a derived feature and an online feature view `planes`, keyed by `tailnum`."""
    random, count = np.random.default_rng(seed), 400
    table = pa.table(
        {
            "distance": pa.array(random.integers(100, 3000, count), mask=random.random(count) < 0.1),
            "is_far": random.random(count) < 0.5,
            "mean_delay": pa.array(random.normal(size=count), mask=random.random(count) < 0.1),
            "flights": random.integers(0, 50, count),
            "carrier": random.choice(["AA", "UA", "B6"], count),
            "home": random.choice(["EWR", "JFK"], count),
        }
    )
    value = table["distance"].to_pandas().fillna(0).to_numpy() / 1000 + table["mean_delay"].to_pandas().fillna(0).to_numpy()
    labels: Any = value
    if problem == "binary_classification":
        labels = (value > np.median(value)).astype(np.int64)
    if problem == "multiclass_classification":
        labels = np.array(["low", "middle", "high"], dtype=object)[np.digitize(value, np.quantile(value, [0.3, 0.6]))]
    request = {"flight_id": "f1", "predicted_at": NOON.isoformat(), "tailnum": "N1", "carrier": "AA", "distance": 500}
    return fit_bundle(
        table,
        labels,
        schema=FeatureSchema(numeric=("distance", "is_far", "mean_delay", "flights"), categorical=("carrier", "home")),
        problem=problem,
        estimator=estimator or boosting(problem),
        requests=[request | {"flight_id": f"f{number}"} for number in range(5)],
        name=name,
        version=version,
        key={"name": "flight_id", "type": "varchar"},
        entity_keys=[{"name": "tailnum", "type": "varchar"}],
        time_zone="America/New_York",
        partition_column="flight_date",
        feature_views=[{"name": "planes", "version": 1, "entity": ["tailnum"], "features": list(VIEW_COLUMNS), "online": True}],
        request_columns=[{"name": name, "type": kind} for name, kind in _REQUEST.items()],
        derived_features=[{"name": "is_far", "expression": "distance > 1000"}],
    )


def push_planes(store: OnlineStore) -> None:
    """The feature view `planes` with values of all `PLANES` but the last, known for two hours before `NOON`."""
    view = OnlineView(
        name="planes",
        version=1,
        entity=(Column("tailnum", "string"),),
        features=tuple(Column(name, kind) for name, kind in VIEW_COLUMNS.items()),
        timed=True,
        freshness_days=7,
    )
    since = int(NOON.timestamp() * 1e6) - 2 * 3_600_000_000
    values = [(0.5, 3, "EWR"), (-1.25, 40, "JFK"), (None, 0, None)]
    written = [EntityValues((plane,), since, each) for plane, each in zip(PLANES[:3], values, strict=True)]
    store.push(view, source="features.planes", snapshot=7, base=None, written=written, removed=[])
