import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.evaluation import Evaluation, evaluate
from mlops_assets.schema.metric_names import metric_names

RANDOM = np.random.default_rng(3)
LABELS = (RANDOM.random(500) < 0.3).astype(np.int64)
SCORES = np.clip(0.3 + 0.2 * (LABELS - 0.3) + RANDOM.normal(0, 0.15, 500), 0.01, 0.99)
CARRIERS = np.array(["AA"] * 300 + ["UA"] * 190 + ["ZZ"] * 6 + [None] * 4, dtype=object)


def _binary(slices: pa.Table) -> Evaluation:
    return evaluate(
        problem="binary_classification",
        metrics=metric_names("binary_classification"),
        labels=LABELS,
        predictions=np.column_stack([1 - SCORES, SCORES]),
        training_labels=np.array([0, 0, 0, 1]),
        classes=(0, 1),
        threshold=0.4,
        slices=slices,
        minimum_slice_rows=50,
        resampling=None,
    )


def test_slices_are_evaluated_on_their_own_rows_and_small_ones_are_counted() -> None:
    result = _binary(pa.table({"carrier": CARRIERS}))
    assert [(each.value, each.rows) for each in result.slices] == [("AA", 300), ("UA", 190)]
    assert result.dropped_slices == {"carrier": 2}
    assert result.slices[1].metrics["roc_auc"] == pytest.approx(roc_auc_score(LABELS[300:490], SCORES[300:490]))


def test_the_baseline_predicts_the_label_rate_of_training() -> None:
    result = _binary(pa.table({}))
    assert result.label_rate == pytest.approx(LABELS.mean())
    assert result.baseline["roc_auc"] == 0.5
    assert result.baseline["brier_score"] == pytest.approx(np.mean((0.25 - LABELS) ** 2))
    assert sum(point.rows for point in result.calibration) == 500


def test_an_evaluation_is_json() -> None:
    result = _binary(pa.table({"carrier": CARRIERS}))
    assert json.loads(json.dumps(result.as_dict()))["metrics"] == result.metrics


def test_classes_and_values_have_their_own_baseline() -> None:
    classes = evaluate(
        problem="multiclass_classification",
        metrics=metric_names("multiclass_classification"),
        labels=np.array(["a", "b", "c", "a"], dtype=object),
        predictions=np.eye(3)[[0, 1, 2, 1]] * 0.97 + 0.01,
        training_labels=np.array(["a", "a", "b", "c"], dtype=object),
        classes=("a", "b", "c"),
        threshold=0.5,
        slices=pa.table({}),
        minimum_slice_rows=1,
        resampling=None,
    )
    assert classes.metrics["accuracy"] == 0.75
    assert classes.baseline["accuracy"] == 0.5
    assert classes.label_rate is None
    values = evaluate(
        problem="regression",
        metrics=metric_names("regression"),
        labels=np.array([1.0, 2.0, 3.0]),
        predictions=np.array([1.0, 2.0, 3.0]),
        training_labels=np.array([1.0, 2.0, 9.0]),
        classes=(),
        threshold=0.5,
        slices=pa.table({"half": [True, True, False]}),
        minimum_slice_rows=2,
        resampling=None,
    )
    assert values.metrics["mean_absolute_error"] == 0
    # The constant that suits each metric best: the median 2, and the mean 4.
    assert values.baseline["mean_absolute_error"] == pytest.approx(2 / 3)
    assert values.baseline["root_mean_squared_error"] == pytest.approx(np.sqrt((9 + 4 + 1) / 3))
    assert [(each.value, each.rows) for each in values.slices] == [("true", 2)]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "no rows to evaluate"),
        ([1.0], [1.0, 2.0], "1 labels, 2 predictions"),
        ([1.0], [float("nan")], "1 predictions are not finite"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error(labels: list[float], predictions: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(
            problem="regression",
            metrics=metric_names("regression"),
            labels=np.array(labels),
            predictions=np.array(predictions),
            training_labels=np.array([1.0]),
            classes=(),
            threshold=0.5,
            slices=pa.table({}),
            minimum_slice_rows=1,
            resampling=None,
        )
