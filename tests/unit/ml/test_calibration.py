import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from mlops_assets.ml.calibration import apply_curve, fit_curve
from mlops_assets.ml.estimators.calibrated import CalibratedClassifier
from mlops_assets.ml.onnx import measure_parity, to_onnx
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.weighted_metrics import WeightedMetrics

METRIC = "expected_calibration_error"
METHODS = ("sigmoid", "isotonic")


@pytest.fixture
def bent() -> tuple[np.ndarray, np.ndarray]:
    """Scores that are the square root of the true probability, so too high everywhere, and labels drawn from that probability."""
    random = np.random.default_rng(3)
    truth = random.beta(1.2, 3, 20_000)
    return np.sqrt(truth), (random.random(20_000) < truth).astype(np.int64)


@pytest.mark.parametrize("method", METHODS)
def test_bent_scores_become_probabilities_and_keep_their_order(method, bent) -> None:
    scores, labels = bent
    curve = fit_curve(method, scores[:10_000], labels[:10_000])
    calibrated = apply_curve(curve, scores[10_000:])
    before, after = (
        WeightedMetrics("binary_classification", labels[10_000:], each, (0, 1), 0.5).values((METRIC,))[METRIC]
        for each in (scores[10_000:], calibrated)
    )
    assert before > 0.15
    assert after < 0.03
    assert calibrated.min() > 0
    assert calibrated.max() < 1
    order = np.argsort(scores[10_000:])
    assert (np.diff(calibrated[order]) >= -1e-7).all()


def test_isotonic_pools_are_those_of_a_small_example() -> None:
    # The two in the middle violate the order: they share the mean 0.5 at the mean of their scores.
    scores = np.repeat([0.1, 0.4, 0.6, 0.9], 100)
    labels = np.concatenate([np.arange(100) < share for share in (10, 60, 40, 90)]).astype(np.int64)
    curve = fit_curve("isotonic", scores, labels)
    np.testing.assert_allclose(curve["scores"], [0.1, 0.5, 0.9], atol=1e-6)
    np.testing.assert_allclose(curve["probabilities"], [0.1, 0.5, 0.9], atol=1e-6)
    np.testing.assert_allclose(apply_curve(curve, np.array([0.0, 0.3, 0.5, 1.0])), [0.1, 0.3, 0.5, 0.9], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_say_nothing_cannot_be_calibrated(method) -> None:
    scores = np.linspace(0.1, 0.9, 1000)
    with pytest.raises(ValueError, match="finds no more positives at higher out-of-fold scores"):
        fit_curve(method, scores, (scores < 0.5).astype(np.int64))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 20}),
        ("sklearn.linear_model.LogisticRegression", {}),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 5}),
    ],
)
def test_the_exported_model_is_calibrated_too(method, path, parameters, sample) -> None:
    labels = sample.labels["binary_classification"]
    pipeline = build_pipeline(
        problem="binary_classification",
        schema=sample.schema,
        estimator=PipelineStep(path, parameters),
        numeric=None,
        categorical=None,
        seed=0,
    )
    fit_pipeline(pipeline, sample.frame, labels)
    plain = pipeline.predict_proba(sample.frame)[:, 1]
    curve = fit_curve(method, np.sqrt(plain), labels)
    *steps, (name, estimator) = pipeline.steps
    calibrated = Pipeline([*steps, (name, CalibratedClassifier(estimator, curve))])
    result = measure_parity(
        calibrated,
        to_onnx(calibrated, sample.schema, "binary_classification"),
        sample.frame,
        sample.schema,
        "binary_classification",
    )
    assert result.largest_difference < 1e-5
    assert np.abs(calibrated.predict_proba(sample.frame)[:, 1] - plain).max() > 0.05


def test_the_exported_label_follows_the_calibrated_probability(sample) -> None:
    from onnxruntime import InferenceSession

    labels = sample.labels["binary_classification"]
    pipeline = build_pipeline(
        problem="binary_classification",
        schema=sample.schema,
        estimator=PipelineStep("sklearn.linear_model.LogisticRegression", {}),
        numeric=None,
        categorical=None,
        seed=0,
    )
    fit_pipeline(pipeline, sample.frame, labels)
    *steps, (name, estimator) = pipeline.steps
    calibrated = Pipeline([*steps, (name, CalibratedClassifier(estimator, {"slope": 1.0, "intercept": 2.0}))])
    session = InferenceSession(to_onnx(calibrated, sample.schema, "binary_classification"), providers=["CPUExecutionProvider"])
    inputs = {
        "numeric": sample.frame[list(sample.schema.numeric)].to_numpy(dtype=np.float32),
        "categorical": sample.frame[list(sample.schema.categorical)].to_numpy(dtype=object),
    }
    label, probabilities = session.run(["label", "probabilities"], inputs)
    np.testing.assert_array_equal(label, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(label, calibrated.predict(sample.frame))
    assert label.mean() > pipeline.predict(sample.frame).mean() + 0.1
