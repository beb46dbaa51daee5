import warnings

import numpy as np
import pyarrow as pa
import pytest
from census import SCHEMA, census
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.performance_estimation import PredictionChunk, estimate_metrics, estimated_metrics

METRICS = ("roc_auc", "accuracy", "f1")


def test_cbpe_is_nannyml_s_and_right_on_the_census() -> None:
    """The error of the estimate against what happened, on years that the reference does not hold."""
    import nannyml

    reference, analysis = census("reference", 10_000), census("analysis", 8_000)
    chunks = [PredictionChunk((str(number), ""), analysis.slice(2000 * number, 2000)) for number in range(4)]
    found = estimate_metrics(
        "binary_classification",
        reference=reference,
        label="employed",
        chunks=chunks,
        schema=SCHEMA,
        classes=(0, 1),
        metrics=METRICS,
    )
    direct = nannyml.CBPE(
        metrics=list(METRICS),
        y_pred_proba="score",
        y_pred="predicted_label",
        y_true="employed",
        problem_type="classification_binary",
        chunk_size=2000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ["score", "predicted_label"]
        expected = direct.fit(reference.select([*names, "employed"]).to_pandas()).estimate(analysis.select(names).to_pandas())
    data = expected.filter(period="analysis").data
    errors = []
    for number, chunk in enumerate(chunks):
        for metric in METRICS:
            assert found[chunk.name, metric].value == pytest.approx(data[metric]["value"].iloc[number], rel=1e-9)
        value = found[chunk.name, "roc_auc"]
        realised = roc_auc_score(chunk.table["employed"].to_numpy(), chunk.table["score"].to_numpy())
        assert value.lower < realised < value.upper
        errors.append(abs(value.value - realised))
    print(f"CBPE on the US census: mean error of ROC AUC {np.mean(errors):.4f}, largest {max(errors):.4f}")  # noqa: T201
    assert max(errors) < 0.02


def test_dle_is_nannyml_s_and_sees_rows_that_are_harder_to_predict() -> None:
    import nannyml

    random = np.random.default_rng(0)

    def sample(rows: int, spread: float) -> pa.Table:
        x = random.uniform(0, spread, rows)
        return pa.table({"x": x, "kind": random.choice(["a", "b"], rows), "value": x, "label": x + x * random.normal(size=rows)})

    reference, easy, hard = sample(3000, 2.0), sample(1000, 0.5), sample(1000, 2.0)
    schema = FeatureSchema(numeric=("x",), categorical=("kind",))
    chunks = [PredictionChunk(("easy", ""), easy), PredictionChunk(("hard", ""), hard)]
    found = estimate_metrics(
        "regression",
        reference=reference,
        label="label",
        chunks=chunks,
        schema=schema,
        classes=(),
        metrics=("mean_absolute_error",),
    )
    direct = nannyml.DLE(
        feature_column_names=["x", "kind"],
        y_pred="value",
        y_true="label",
        metrics=["mae"],
        chunk_size=1000,
        hyperparameters={"n_jobs": 1},
    )
    frames = []
    for table in (reference, pa.concat_tables([easy, hard])):
        frame = to_frame(table, schema)
        frames.append(frame.assign(value=table["value"].to_numpy(), label=table["label"].to_numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = direct.fit(frames[0]).estimate(frames[1].drop(columns="label")).filter(period="analysis").data
    for number, chunk in enumerate(chunks):
        value = found[chunk.name, "mean_absolute_error"].value
        assert value == pytest.approx(data["mae"]["value"].iloc[number], rel=1e-6)
        realised = np.abs(chunk.table["value"].to_numpy() - chunk.table["label"].to_numpy()).mean()
        assert value == pytest.approx(realised, rel=0.15)


def test_several_classes_are_estimated() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1.0, 1.0, 1.0], 3000).astype(np.float32)
    labels = np.array(["a", "b", "c"])[(probabilities.cumsum(axis=1) < random.random((3000, 1))).sum(axis=1)]
    table = pa.table(
        {
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.reshape(-1)), 3),
            "predicted_label": np.array(["a", "b", "c"])[probabilities.argmax(axis=1)],
            "label": labels,
        }
    )
    chunk = PredictionChunk(("w", ""), table.slice(2000))
    found = estimate_metrics(
        "multiclass_classification",
        reference=table.slice(0, 2000),
        label="label",
        chunks=[chunk],
        schema=FeatureSchema((), ()),
        classes=("a", "b", "c"),
        metrics=estimated_metrics("multiclass_classification", "accuracy"),
    )
    realised = np.mean(chunk.table["label"].to_numpy() == chunk.table["predicted_label"].to_numpy())
    assert found[chunk.name, "accuracy"].value == pytest.approx(realised, abs=0.05)


def test_a_slow_metric_is_estimated_only_when_models_are_chosen_by_it() -> None:
    assert "average_precision" not in estimated_metrics("binary_classification", "roc_auc")
    assert "average_precision" in estimated_metrics("binary_classification", "average_precision")
