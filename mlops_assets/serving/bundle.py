"""The serving bundle: a folder with `model.onnx` and `contract.json`, all that a process needs to answer with a model.

Written once by a promotion, read by the batch asset and by the servers. A process that reads a bundle loads ONNX Runtime,
Arrow and pydantic, and neither pandas nor scikit-learn. Fetching features and logging predictions belong elsewhere.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from mlops_assets.ml.matrix import categorical_matrix, numeric_matrix
from mlops_assets.serving.contract import Contract

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL_FILE = "model.onnx"
CONTRACT_FILE = "contract.json"
BATCH_ROWS = 50_000


class BundleError(Exception):
    """A bundle that is incomplete, tampered with, or not in the format of this version."""


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: its contract, its folder, and an ONNX Runtime session (safe to call from several threads)."""

    path: Path
    contract: Contract
    session: "InferenceSession"

    def score(self, table: pa.Table) -> pa.Table:
        """Predict every row of `table`, in its order, in batches of at most `BATCH_ROWS` rows.

        Binary: `score` (probability of the second class) and `predicted_label`. Several classes: `score` (probability of
        the predicted class), `predicted_label` and `probabilities` (a list in the order of `contract.classes`).
        Regression: `value`. Scores are float32. Columns other than the features are ignored; a null number is read as NaN
        and a null string as "". Raises ValueError when a feature is missing from the table.
        """
        schema = self.contract.feature_schema
        missing = [name for name in schema.names if name not in table.column_names]
        if missing:
            raise ValueError(f"{self.contract.name} version {self.contract.version} needs the features {', '.join(missing)}.")
        features = table.select(list(schema.names))
        batches = [self._score_batch(features.slice(start, BATCH_ROWS)) for start in range(0, max(table.num_rows, 1), BATCH_ROWS)]
        return pa.concat_tables(batches)

    def _score_batch(self, table: pa.Table) -> pa.Table:
        if self.contract.problem == "regression":
            return pa.Table.from_arrays([_array(self._run("value", table).reshape(-1))], names=["value"])
        probabilities = self._run("probabilities", table)
        if self.contract.problem == "binary_classification":
            score = probabilities[:, 1]
            positions = (score >= np.float32(self.contract.decision_threshold)).astype(np.int64)
            return pa.Table.from_arrays([_array(score), self._labels(positions)], names=["score", "predicted_label"])
        positions = probabilities.argmax(axis=1)
        score = np.take_along_axis(probabilities, positions[:, None], axis=1).reshape(-1)
        lists = pa.FixedSizeListArray.from_arrays(_array(probabilities.reshape(-1)), len(self.contract.classes))
        columns = [_array(score), self._labels(positions), lists]
        return pa.Table.from_arrays(columns, names=["score", "predicted_label", "probabilities"])

    def _labels(self, positions: np.ndarray) -> pa.Array:
        if all(isinstance(value, int) for value in self.contract.classes):
            return _array(np.array(self.contract.classes, dtype=np.int64)[positions])
        texts = [str(value).encode() for value in self.contract.classes]
        ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        classes = pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))
        return classes.take(_array(positions))

    def _run(self, output: str, table: pa.Table) -> np.ndarray:
        schema = self.contract.feature_schema
        if table.num_rows == 0:
            return np.empty((0, max(len(self.contract.classes), 1)), dtype=np.float32)
        inputs: dict[str, np.ndarray] = {}
        if schema.numeric:
            inputs["numeric"] = numeric_matrix(table, schema.numeric)
        if schema.categorical:
            inputs["categorical"] = categorical_matrix(table, schema.categorical)
        return self.session.run([output], inputs)[0]


def _array(values: np.ndarray) -> pa.Array:
    """A float32 or int64 array without copying. Unlike `pa.array` it does not import pandas, which takes a third of a second."""
    kind = pa.float32() if values.dtype == np.float32 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def model_hash(model: bytes) -> str:
    """The SHA-256 of a model file's bytes, in hexadecimal: the contract's `model_sha256`."""
    return hashlib.sha256(model).hexdigest()


def write_bundle(path: Path, model: bytes, contract: Contract) -> None:
    """Write `model` and `contract` as the folder `path`, which appears complete or not at all.

    Writing the same bundle again changes nothing. Raises BundleError when the contract's hash is not the model's, or
    another bundle is at `path` already: a bundle is never overwritten.
    """
    if contract.model_sha256 != model_hash(model):
        raise BundleError(f"The contract of {contract.name} version {contract.version} holds the hash of another model file.")
    text = contract.model_dump_json(indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        scratch.chmod(0o755)
        for name, content in ((MODEL_FILE, model), (CONTRACT_FILE, text.encode())):
            with (scratch / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        try:
            scratch.rename(path)
        except OSError:
            if not path.exists():
                raise
            if not _holds(path, model, text):
                raise BundleError(f"{path} holds another bundle: give the new version a folder of its own.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_bundle(path: Path) -> Bundle:
    """Load the bundle in the folder `path` and verify its hash.

    Raises BundleError when a file is missing, the contract is not valid, or `model.onnx` is not the file that was promoted.
    """
    from onnxruntime import InferenceSession, SessionOptions

    model_path, contract_path = path / MODEL_FILE, path / CONTRACT_FILE
    for needed in (model_path, contract_path):
        if not needed.is_file():
            raise BundleError(f"{needed} is missing: promote the model again to write its bundle.")
    try:
        contract = Contract.model_validate_json(contract_path.read_bytes())
    except ValidationError as error:
        raise BundleError(f"{contract_path} is not a valid contract: {_first_error(error)}") from error
    model = model_path.read_bytes()
    if model_hash(model) != contract.model_sha256:
        raise BundleError(
            f"{model_path} was changed after promotion (its SHA-256 is not the contract's): promote the model again."
        )
    options = SessionOptions()
    # Threads that spin while they wait take the processor from whoever they wait for: on a busy machine four times as slow.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Bundle(path=path, contract=contract, session=session)


def _holds(path: Path, model: bytes, text: str) -> bool:
    files = {path / MODEL_FILE: model, path / CONTRACT_FILE: text.encode()}
    return all(file.is_file() and file.read_bytes() == content for file, content in files.items())


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'contract'}: {first['msg']}"
