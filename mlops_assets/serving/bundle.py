"""The serving bundle: a folder with the model, `contract.json` and `sample.json`, all that a process needs to answer with a model.

Written once by a promotion, read by the batch asset and by the servers. The model is `model.onnx`: a process that reads it loads ONNX
Runtime, Arrow and pydantic, and neither pandas nor scikit-learn. One without an ONNX form is `model.skops`. Fetching features and logging
predictions belong elsewhere, and loading to `bundle_loading`.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import categorical_matrix, numeric_matrix
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.sample import Sample

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CONTRACT_FILE = "contract.json"
SAMPLE_FILE = "sample.json"
BATCH_ROWS = 50_000


class BundleError(Exception):
    """A bundle that is incomplete, tampered with, not in the format of this version, or does not answer as the fitted model did."""


class PredictingModel(Protocol):
    """A model in whichever format and process. Safe to call from several threads."""

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Float32 probabilities [rows, classes] or values [rows, 1] of a float32 matrix and an object matrix of strings."""
        ...


class RemoteModel(PredictingModel, Protocol):
    """A model in other processes, which others need not wait for."""

    @property
    def time_limit(self) -> float:
        """The most seconds from a request to its answer."""
        ...

    def submit(self, numeric: np.ndarray, categorical: np.ndarray) -> "Future[np.ndarray]":
        """Start a prediction, and return the future of what `predict` answers."""
        ...

    def close(self) -> None:
        """End the processes after what they were asked by now."""
        ...

    def join(self, seconds: float) -> None:
        """Wait for the processes after `close`, and kill those that are not done in time."""
        ...


@dataclass(frozen=True)
class OnnxModel:
    """A model in a session of ONNX Runtime."""

    session: "InferenceSession"
    output: str

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Probabilities [rows, classes] or values [rows, 1] of a float32 matrix [rows, numeric features] and an object matrix of strings."""
        inputs: dict[str, np.ndarray] = {}
        if numeric.shape[1]:
            inputs["numeric"] = numeric
        if categorical.shape[1]:
            inputs["categorical"] = categorical
        return self.session.run([self.output], inputs)[0]


@dataclass(frozen=True)
class Bundle:
    """A bundle that answers: its folder, contract and sample, and its model."""

    path: Path
    contract: Contract
    sample: Sample
    model: PredictingModel

    def score(self, table: pa.Table) -> pa.Table:
        """Predict every row of `table`, in its order, in batches of at most `BATCH_ROWS` rows.

        Binary: `score` (probability of the second class) and `predicted_label`. Several classes: `score` (probability of
        the predicted class), `predicted_label` and `probabilities` (a list in the order of `contract.classes`).
        Regression: `value`. Scores are float32. Columns other than the features are ignored; a null number is read as NaN
        and a null string as "". Raises ValueError when a feature is missing from the table.
        """
        schema = self.contract.feature_schema
        present = set(table.column_names)
        missing = [name for name in schema.names if name not in present]
        if missing:
            raise ValueError(f"{self.contract.name} version {self.contract.version} needs the features {', '.join(missing)}.")
        features = table.select(list(schema.names))
        batches = [self._score_batch(features.slice(start, BATCH_ROWS)) for start in range(0, max(table.num_rows, 1), BATCH_ROWS)]
        return pa.concat_tables(batches)

    @cached_property
    def _threshold(self) -> float:
        """The threshold of a decision, a float32 value as the scores are."""
        return float(np.float32(self.contract.decision_threshold))

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Return the answers of the model; see `PredictingModel`."""
        return self.model.predict(numeric, categorical)

    def verify(self) -> None:
        """Let the model answer the sample. Raises BundleError when it does not do so as the fitted model did."""
        file = self.path / self.contract.model_file
        try:
            answers = self.predict(*self.sample.matrices(self.contract.feature_schema))
        except Exception as error:  # the errors of ONNX Runtime and of estimators have no class in common, and numpy has others
            raise BundleError(f"{file} does not answer the rows of {SAMPLE_FILE}: {error}") from error
        difference = self.sample.difference(answers)
        if difference > self.sample.maximum_difference:
            raise BundleError(
                f"{self.path} does not answer its sample as the fitted model did (difference {difference:.2g}, at most "
                f"{self.sample.maximum_difference:g}): compare this machine's libraries and processor with those of training."
            )

    def decide(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The score of each row, and the position of the predicted class in `contract.classes`."""
        if self.contract.problem == "binary_classification":
            score = probabilities[:, 1]
            return score, (score >= np.float32(self._threshold)).astype(np.int64)
        positions = probabilities.argmax(axis=1)
        return np.take_along_axis(probabilities, positions[:, None], axis=1).reshape(-1), positions

    def decide_row(self, probabilities: Sequence[float]) -> tuple[float, int]:
        """Decide one row as `decide` does: arrays of one row would cost a request more than the decision."""
        if self.contract.problem == "binary_classification":
            score = probabilities[1]
            return score, int(score >= self._threshold)
        score = max(probabilities)
        return score, probabilities.index(score)

    def _score_batch(self, table: pa.Table) -> pa.Table:
        schema = self.contract.feature_schema
        if table.num_rows == 0:
            answers = np.empty((0, max(len(self.contract.classes), 1)), dtype=np.float32)
        else:
            numeric = numeric_matrix(table, schema.numeric, schema.origins)
            answers = self.predict(numeric, categorical_matrix(table, schema.categorical))
        return self.answers_table(answers)

    def answers_table(self, answers: np.ndarray) -> pa.Table:
        """What follows from the `answers` of `predict`, with the columns of `score`."""
        if self.contract.problem == "regression":
            return pa.Table.from_arrays([_array(answers.reshape(-1))], names=["value"])
        score, positions = self.decide(answers)
        columns, names = [_array(score), self._labels(positions)], ["score", "predicted_label"]
        if self.contract.problem == "multiclass_classification":
            # Lists of no fixed length: the lake has no other.
            ends = np.arange(0, answers.size + 1, len(self.contract.classes), dtype=np.int32)
            offsets = pa.Array.from_buffers(pa.int32(), len(ends), [None, pa.py_buffer(ends)])
            columns.append(pa.ListArray.from_arrays(offsets, _array(answers.reshape(-1))))
            names.append("probabilities")
        return pa.Table.from_arrays(columns, names=names)

    def _labels(self, positions: np.ndarray) -> pa.Array:
        if all(isinstance(value, int) for value in self.contract.classes):
            return _array(np.array(self.contract.classes, dtype=np.int64)[positions])
        texts = [str(value).encode() for value in self.contract.classes]
        ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        classes = pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))
        return classes.take(_array(positions))


def _array(values: np.ndarray) -> pa.Array:
    """A float32 or int64 array without copying. Unlike `pa.array` it does not import pandas, which takes a third of a second."""
    kind = pa.float32() if values.dtype == np.float32 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def file_hash(content: bytes) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal: the contract's `model_sha256` and `sample_sha256`."""
    return hashlib.sha256(content).hexdigest()


def write_bundle(path: Path, model: bytes, sample: Sample, contract: Contract) -> None:
    """Write `model`, `sample` and `contract` as the folder `path`, which appears complete or not at all.

    Writing the same bundle again changes nothing. Raises BundleError when the contract holds the hash of another file, or
    another bundle is at `path` already: a bundle is never overwritten.
    """
    files = {
        contract.model_file: model,
        SAMPLE_FILE: sample.to_bytes(),
        CONTRACT_FILE: contract.model_dump_json(indent=2).encode() + b"\n",
    }
    if (contract.model_sha256, contract.sample_sha256) != (file_hash(model), file_hash(files[SAMPLE_FILE])):
        raise BundleError(
            f"The contract of {contract.name} version {contract.version} holds the hash of another model or sample."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, content in files.items():
            with (scratch / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        try:
            scratch.rename(path)
        except OSError:
            if not path.exists():
                raise
            if not all((path / name).is_file() and (path / name).read_bytes() == content for name, content in files.items()):
                raise BundleError(f"{path} holds another bundle: give the new version a folder of its own.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
