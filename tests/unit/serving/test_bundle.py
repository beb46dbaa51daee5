import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bundles import Fitted, boosting, fit_bundle, load
from pydantic import ValidationError

from mlops_assets.clients.bundle_record import folder_files
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.pipeline import predict
from mlops_assets.schema.problem import Problem
from mlops_assets.serving.bundle import BATCH_ROWS, BundleError, file_hash, write_bundle
from mlops_assets.serving.bundle_loading import load_bundle
from mlops_assets.serving.contract import describe_features
from mlops_assets.serving.sample import Sample

SCHEMA = FeatureSchema(
    numeric=tuple(f"n{number}" for number in range(40)), categorical=tuple(f"c{number}" for number in range(10))
)


def _table(rows: int) -> pa.Table:
    random = np.random.default_rng(rows)
    columns: dict[str, pa.Array] = {
        name: pa.array(random.normal(size=rows), mask=random.random(rows) < 0.1) for name in SCHEMA.numeric
    }
    values = np.array([f"value {number}" for number in range(200)])
    columns |= {name: pa.array(random.choice(values, rows), mask=random.random(rows) < 0.1) for name in SCHEMA.categorical}
    return pa.table(columns)


def _labels(table: pa.Table, problem: Problem) -> np.ndarray:
    value = np.nan_to_num(table["n0"].to_numpy()) + np.nan_to_num(table["n1"].to_numpy())
    if problem == "regression":
        return value
    if problem == "binary_classification":
        return (value > 0.5).astype(np.int64)
    return np.array(["low", "middle", "high"], dtype=object)[np.digitize(value, [-0.5, 0.5])]


def _fitted(problem: Problem) -> Fitted:
    table = _table(2000)
    return fit_bundle(
        table,
        _labels(table, problem),
        schema=SCHEMA,
        problem=problem,
        estimator=boosting(problem),
        requests=[{"id": str(number)} for number in range(10)],
        version=3,
        run_id="run",
    )


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "3"
    fitted = _fitted("binary_classification")
    return fitted.write(path), fitted


def test_scores_are_those_of_the_pipeline(promoted) -> None:
    path, fitted = promoted
    table = _table(500).append_column("id", pa.array(range(500)))
    scored = load(path).score(table)
    expected = predict(fitted.pipeline, to_frame(table, SCHEMA), "binary_classification")[:, 1]
    np.testing.assert_allclose(scored["score"].to_numpy(), expected, atol=1e-6)
    assert scored["predicted_label"].to_pylist() == [int(score >= 0.35) for score in scored["score"].to_pylist()]
    assert load(path).contract == fitted.contract
    assert load(path).sample == fitted.sample


def test_classes_and_values_are_scored(tmp_path: Path) -> None:
    table = _table(300)
    fitted = _fitted("multiclass_classification")
    scored = load(fitted.write(tmp_path / "classes")).score(table)
    expected = predict(fitted.pipeline, to_frame(table, SCHEMA), "multiclass_classification")
    np.testing.assert_allclose(np.array(scored["probabilities"].to_pylist()), expected, atol=1e-6)
    assert scored["predicted_label"].to_pylist() == [fitted.contract.classes[row] for row in expected.argmax(axis=1)]
    np.testing.assert_allclose(scored["score"].to_numpy(), expected.max(axis=1), atol=1e-6)
    fitted = _fitted("regression")
    values = load(fitted.write(tmp_path / "values")).score(table)["value"].to_numpy()
    np.testing.assert_allclose(values, fitted.pipeline.predict(to_frame(table, SCHEMA)), atol=1e-5)


def test_batches_join_in_order_and_no_rows_give_no_rows(promoted) -> None:
    bundle = load(promoted[0])
    table = _table(200)
    repeated = pa.concat_tables([table] * (BATCH_ROWS // 200 + 2))
    scored = bundle.score(repeated)["score"].to_numpy()
    np.testing.assert_array_equal(scored, np.tile(bundle.score(table)["score"].to_numpy(), len(repeated) // 200))
    empty = bundle.score(table.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema == bundle.score(table).schema


def test_thirty_thousand_rows_take_less_than_a_second(promoted) -> None:
    bundle, table = load(promoted[0]), _table(30_000)
    bundle.score(table.slice(0, 10))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        bundle.score(table)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0


@pytest.mark.parametrize("name", ["model.onnx", "sample.json", "contract.json"])
def test_a_changed_file_is_refused(promoted, tmp_path: Path, name: str) -> None:
    path = promoted[1].write(tmp_path / "b") / name
    files = folder_files(tmp_path / "b")
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(BundleError, match=rf"{name} was changed after promotion"):
        load_bundle(tmp_path / "b", files)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        load_bundle(tmp_path / "b", files)


def test_a_file_that_was_added_is_refused(promoted, tmp_path: Path) -> None:
    files = folder_files(promoted[1].write(tmp_path / "b"))
    (tmp_path / "b" / "weights.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"weights\.bin does not belong to the bundle"):
        load_bundle(tmp_path / "b", files)


def test_a_pickle_is_refused_and_never_loaded(promoted, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    fitted, content = promoted[1], pickle.dumps(Malicious())
    contract = fitted.contract.model_copy(update={"model_sha256": file_hash(content)})
    write_bundle(tmp_path / "b", content, fitted.sample, contract)
    with pytest.raises(BundleError, match=r"model\.onnx is no model that ONNX Runtime can run"):
        load(tmp_path / "b")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [((0.5, 0.5), r"does not answer its sample as the fitted model did \(difference 0\."), ((1.0,), "difference inf")],
)
def test_a_model_that_answers_something_else_is_refused(promoted, tmp_path: Path, answer: tuple, message: str) -> None:
    fitted = promoted[1]
    row = fitted.sample.rows[0].model_copy(update={"answer": answer})
    sample = Sample(maximum_difference=1e-4, rows=(row,))
    contract = fitted.contract.model_copy(update={"sample_sha256": file_hash(sample.to_bytes())})
    write_bundle(tmp_path / "b", fitted.model, sample, contract)
    with pytest.raises(BundleError, match=message):
        load(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"version": 0}, "version: Input should be greater"),
        ({"decision_threshold": None}, "decision_threshold belongs"),
        ({"classes": [0]}, "cannot have 1 classes"),
        ({"problem": "ranking"}, "problem: Input should be"),
        ({"key": {"name": "id", "type": "varchar[]"}}, "is no type that a request can give"),
        ({"key": {"name": "features", "type": "varchar"}}, "a request has a field features of another meaning"),
    ],
)
def test_a_contract_that_is_not_valid_is_refused(promoted, tmp_path: Path, change: dict, message: str) -> None:
    path = promoted[1].write(tmp_path / "b") / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        load(tmp_path / "b")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"contract\.json is missing"):
        load(tmp_path)


def test_writing_is_idempotent_and_never_overwrites(promoted, tmp_path: Path) -> None:
    fitted = promoted[1]
    path = fitted.write(tmp_path / "b")
    fitted.write(path)
    with pytest.raises(BundleError, match="holds another bundle"):
        write_bundle(path, fitted.model, fitted.sample, fitted.contract.model_copy(update={"run_id": "another"}))
    with pytest.raises(BundleError, match="hash of another model or sample"):
        write_bundle(tmp_path / "c", fitted.model + b" ", fitted.sample, fitted.contract)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b"]
    assert load(path).contract.run_id == "run"


def test_features_are_described_by_what_training_saw() -> None:
    table = pa.table({"a": pa.array([1, None, 5]), "b": pa.array([None, None, None], pa.float64()), "c": ["y", None, "x"]})
    described = describe_features(table, FeatureSchema(numeric=("a", "b"), categorical=("c",)))
    assert [each.model_dump() for each in described] == [
        {"name": "a", "kind": "numeric", "type": "int64", "minimum": 1.0, "maximum": 5.0},
        {"name": "b", "kind": "numeric", "type": "double", "minimum": None, "maximum": None},
        {"name": "c", "kind": "categorical", "type": "string", "categories": ("", "x", "y")},
    ]


def test_a_contract_cannot_be_changed(promoted) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        promoted[1].contract.version = 4


def test_a_missing_feature_is_named(promoted) -> None:
    with pytest.raises(ValueError, match="example version 3 needs the features n1, c0"):
        load(promoted[0]).score(_table(5).drop_columns(["n1", "c0"]))


def test_scoring_loads_neither_pandas_nor_scikit_learn(promoted, tmp_path: Path) -> None:
    # As Arrow IPC: reading Parquet imports pandas by itself.
    rows = _table(20)
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)
    code = f"""
import sys
from pathlib import Path
import pyarrow as pa
from mlops_assets.serving.bundle_loading import load_bundle

rows = pa.ipc.open_file({str(tmp_path / "rows.arrow")!r}).read_all()
print(load_bundle(Path({str(promoted[0])!r}), {folder_files(promoted[0])!r}).score(rows).num_rows)
print([name for name in ("pandas", "sklearn", "skl2onnx", "onnx", "dagster", "mlflow") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split("\n")[:2] == ["20", "[]"]
