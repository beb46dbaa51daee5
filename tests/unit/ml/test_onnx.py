import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.ml.matrix import FeatureSchema, to_exact_frame, to_frame
from mlops_assets.ml.onnx import measure_parity, measure_rounding, onnx_predict, to_onnx
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
from mlops_assets.ml.pipeline_steps import PipelineStep

TARGET = [PipelineStep("sklearn.preprocessing.TargetEncoder", {})]
MODELS = {
    "boosting": ("binary_classification", "sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 20}, None),
    "boosting, target": ("binary_classification", "sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 20}, TARGET),
    "boosting, classes": ("multiclass_classification", "sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5}, None),
    "boosting, value": ("regression", "sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 20}, None),
    "linear": ("binary_classification", "sklearn.linear_model.LogisticRegression", {}, None),
    "linear, classes": ("multiclass_classification", "sklearn.linear_model.LogisticRegression", {"max_iter": 200}, None),
    "linear, value": ("regression", "sklearn.linear_model.Ridge", {}, None),
    "forest": ("binary_classification", "sklearn.ensemble.RandomForestClassifier", {"n_estimators": 5}, None),
    "forest, value": ("regression", "sklearn.ensemble.RandomForestRegressor", {"n_estimators": 5, "max_depth": 8}, None),
    "old boosting": ("binary_classification", "sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 5}, None),
    "old boosting, value": ("regression", "sklearn.ensemble.GradientBoostingRegressor", {"n_estimators": 5}, None),
    "LightGBM": ("binary_classification", "lightgbm.LGBMClassifier", {"n_estimators": 20}, None),
    "LightGBM, target": ("binary_classification", "lightgbm.LGBMClassifier", {"n_estimators": 20}, TARGET),
    "LightGBM, classes": ("multiclass_classification", "lightgbm.LGBMClassifier", {"n_estimators": 5}, None),
    "LightGBM, value": ("regression", "lightgbm.LGBMRegressor", {"n_estimators": 20, "max_bin": 63}, None),
    "XGBoost": ("binary_classification", "xgboost.XGBClassifier", {"n_estimators": 20}, None),
    "XGBoost, classes": ("multiclass_classification", "xgboost.XGBClassifier", {"n_estimators": 5}, None),
    "XGBoost, value": ("regression", "xgboost.XGBRegressor", {"n_estimators": 20}, None),
}
HOSTILE_NUMBER = st.one_of(
    st.sampled_from([float("nan"), 0.0, -0.0, 1e30, -1e30, 1e-40]), st.floats(-200, 200, width=32), st.integers(-5, 50).map(float)
)
HOSTILE_TEXT = st.one_of(
    st.sampled_from(["", "red", "green", "RED", " red", "N1", "nan", "None", "unseen", "ü", "日本"]), st.text(max_size=4)
)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def exported(request, sample):
    problem, path, parameters, categorical = request.param
    pipeline = build_pipeline(
        problem=problem,
        schema=sample.schema,
        estimator=PipelineStep(path, parameters),
        numeric=None,
        categorical=categorical,
        seed=0,
    )
    fit_pipeline(pipeline, sample.frame, sample.labels[problem])
    return problem, pipeline, to_onnx(pipeline, sample.schema, problem)


def test_predictions_are_equal_on_the_training_rows(exported, sample) -> None:
    problem, pipeline, model = exported
    result = measure_parity(pipeline, model, sample.frame, sample.schema, problem)
    assert result.rows == len(sample.frame)
    assert result.largest_relative_difference < 1e-5


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(*[HOSTILE_NUMBER] * 4, *[HOSTILE_TEXT] * 2), min_size=1, max_size=20))
def test_predictions_are_equal_on_hostile_rows(exported, sample, rows: list[tuple]) -> None:
    problem, pipeline, model = exported
    frame = pd.DataFrame(rows, columns=list(sample.schema.names))
    frame[list(sample.schema.numeric)] = frame[list(sample.schema.numeric)].astype(np.float32)
    assert measure_parity(pipeline, model, frame, sample.schema, problem).largest_relative_difference < 1e-5


def test_infinite_numbers_take_the_same_branch(sample) -> None:
    problem, path, parameters, _ = MODELS["boosting"]
    pipeline = build_pipeline(
        problem=problem, schema=sample.schema, estimator=PipelineStep(path, parameters), numeric=None, categorical=None, seed=0
    )
    fit_pipeline(pipeline, sample.frame, sample.labels[problem])
    frame = sample.frame.head(200).copy()
    frame["continuous"] = np.float32(np.inf)
    frame["gaps"] = np.float32(-np.inf)
    assert (
        measure_parity(pipeline, to_onnx(pipeline, sample.schema, problem), frame, sample.schema, problem).largest_difference
        < 1e-6
    )


@pytest.mark.parametrize(
    "estimator",
    [
        PipelineStep("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 1, "min_samples_leaf": 1}),
        PipelineStep("lightgbm.LGBMRegressor", {"n_estimators": 1, "min_child_samples": 1, "min_data_in_bin": 1}),
        PipelineStep("xgboost.XGBRegressor", {"n_estimators": 1}),
    ],
    ids=lambda step: step.class_path,
)
def test_a_threshold_between_neighbouring_float32_values_is_not_moved(estimator: PipelineStep) -> None:
    # The midpoint of two neighbours rounds to one of them: to the upper one in about half of these pairs.
    lower = np.linspace(1, 2, 15, dtype=np.float32)
    upper = np.nextafter(lower, np.float32(3))
    for low, high in zip(lower, upper, strict=True):
        frame = pd.DataFrame({"x": np.repeat([low, high], 50)})
        schema = _numeric_schema()
        pipeline = build_pipeline(
            problem="regression", schema=schema, estimator=estimator, numeric=None, categorical=None, seed=0
        )
        fit_pipeline(pipeline, frame, np.repeat([0.0, 1.0], 50))
        result = measure_parity(pipeline, to_onnx(pipeline, schema, "regression"), frame, schema, "regression")
        assert result.largest_difference < 1e-6


def test_a_different_model_is_found_out(sample) -> None:
    problem, path, parameters, _ = MODELS["boosting"]
    labels = sample.labels[problem]

    def fitted(target: np.ndarray):
        pipeline = build_pipeline(
            problem=problem,
            schema=sample.schema,
            estimator=PipelineStep(path, parameters),
            numeric=None,
            categorical=None,
            seed=0,
        )
        return fit_pipeline(pipeline, sample.frame, target)

    other = to_onnx(fitted(1 - labels), sample.schema, problem)
    result = measure_parity(fitted(labels), other, sample.frame, sample.schema, problem)
    assert result.largest_difference > 0.1


@pytest.mark.parametrize("name", ["boosting", "boosting, value", "forest", "linear", "LightGBM", "XGBoost"])
def test_reading_numbers_as_float32_changes_no_prediction(name: str) -> None:
    # Tenths with more values than a tree has bins: many thresholds are values of the rows.
    random = np.random.default_rng(5)
    table = pa.table({name: np.round(random.normal(60, 15, 8000), 1) for name in ("temperature", "dew_point", "wind")})
    schema = FeatureSchema(numeric=tuple(table.column_names), categorical=())
    target = table["temperature"].to_numpy() + 20 * np.sin(table["dew_point"].to_numpy()) + random.normal(0, 9, 8000)
    problem, path, parameters, _ = MODELS[name]
    pipeline = build_pipeline(
        problem=problem, schema=schema, estimator=PipelineStep(path, parameters), numeric=None, categorical=None, seed=0
    )
    fit_pipeline(pipeline, to_frame(table, schema), target if problem == "regression" else (target > 70).astype(np.int64))
    cost = measure_rounding(pipeline, to_onnx(pipeline, schema, problem), to_exact_frame(table, schema), schema, problem, 1e-4)
    assert cost.changed_share == 0
    assert cost.mean_change < 1e-6


def test_what_float32_costs_is_found() -> None:
    # Epoch seconds that are not counted from an origin: float32 has every 128th.
    table = pa.table({"seconds": 1_700_000_000.0 + np.arange(1000)})
    schema = FeatureSchema(numeric=("seconds",), categorical=())
    pipeline = build_pipeline(
        problem="regression",
        schema=schema,
        estimator=PipelineStep("sklearn.linear_model.Ridge", {}),
        numeric=[PipelineStep("sklearn.preprocessing.StandardScaler", {})],
        categorical=None,
        seed=0,
    )
    fit_pipeline(pipeline, to_frame(table, schema), np.arange(1000) / 60)
    model = to_onnx(pipeline, schema, "regression")
    assert measure_parity(pipeline, model, to_frame(table, schema), schema, "regression").largest_relative_difference < 1e-4
    cost = measure_rounding(pipeline, model, to_exact_frame(table, schema), schema, "regression", 1e-4)
    assert cost.changed_share > 0.9
    assert cost.mean_change > 0.01


def test_missing_and_infinite_numbers_are_compared_as_they_are(sample) -> None:
    problem, path, parameters, _ = MODELS["boosting"]
    pipeline = build_pipeline(
        problem=problem, schema=sample.schema, estimator=PipelineStep(path, parameters), numeric=None, categorical=None, seed=0
    )
    fit_pipeline(pipeline, sample.frame, sample.labels[problem])
    frame = sample.frame.head(300).astype(dict.fromkeys(sample.schema.numeric, np.float64))
    frame["continuous"] = np.resize([np.inf, -np.inf, np.nan, 1e300, -1e300, 0.0], 300)
    cost = measure_rounding(pipeline, to_onnx(pipeline, sample.schema, problem), frame, sample.schema, problem, 1e-4)
    assert (cost.changed_share, cost.mean_change < 1e-6) == (0, True)


def test_inputs_and_outputs_have_fixed_names(exported, sample) -> None:
    from onnxruntime import InferenceSession

    problem, _, model = exported
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    assert {each.name: each.shape[1] for each in session.get_inputs()} == {"numeric": 4, "categorical": 2}
    expected = ["value"] if problem == "regression" else ["label", "probabilities"]
    assert [each.name for each in session.get_outputs()] == expected


def test_an_input_without_columns_is_left_out(sample) -> None:
    schema = _numeric_schema("continuous", "gaps")
    pipeline = build_pipeline(
        problem="regression",
        schema=schema,
        estimator=PipelineStep("sklearn.linear_model.Ridge", {}),
        numeric=None,
        categorical=None,
        seed=0,
    )
    frame = sample.frame[["continuous", "gaps"]]
    fit_pipeline(pipeline, frame, sample.labels["regression"])
    model = to_onnx(pipeline, schema, "regression")
    np.testing.assert_allclose(onnx_predict(model, frame, schema, "regression"), pipeline.predict(frame), atol=1e-5)


def _numeric_schema(*names: str):
    from mlops_assets.ml.matrix import FeatureSchema

    return FeatureSchema(numeric=names or ("x",), categorical=())
