import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mlops_assets.ml.calibration_curve import calibration_curve
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import greater_is_better, metric_names
from mlops_assets.schema.problem import PROBLEMS, Problem


def compute_metrics(
    problem: Problem, labels: np.ndarray, predictions: np.ndarray, classes: tuple[str | int, ...], threshold: float
) -> dict[str, float | None]:
    return WeightedMetrics(problem, labels, predictions, classes, threshold).values(metric_names(problem))


CASES = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=4, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@settings(max_examples=examples(40))
@given(CASES, st.floats(0.05, 0.95))
def test_binary_metrics_are_those_of_scikit_learn(rows: list[tuple[int, float]], threshold: float) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows])
    found = compute_metrics("binary_classification", labels, scores, (0, 1), threshold)
    decided = (scores >= threshold).astype(int)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(labels, scores))
    assert found["brier_score"] == pytest.approx(metrics.brier_score_loss(labels, scores))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, scores))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, decided))
    assert found["recall"] == pytest.approx(metrics.recall_score(labels, decided))
    assert set(found) == set(metric_names("binary_classification"))


def test_multiclass_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    classes = ("a", "b", "c")
    labels = random.choice(classes, 300).astype(object)
    scores = random.dirichlet([1, 1, 1], 300)
    found = compute_metrics("multiclass_classification", labels, scores, classes, 0.5)
    assert found["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(labels, scores, multi_class="ovr", average="macro", labels=classes)
    )
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels.astype(str), scores, labels=list(classes)))
    decided = np.array(classes)[scores.argmax(axis=1)]
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels.astype(str), decided))
    with pytest.raises(ValueError, match="knows no class d"):
        compute_metrics("multiclass_classification", np.array(["d"], dtype=object), scores[:1], classes, 0.5)


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, values = random.normal(size=50), random.normal(size=50)
    found = compute_metrics("regression", labels, values, (), 0.5)
    assert found["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(labels, values))
    assert found["root_mean_squared_error"] == pytest.approx(metrics.root_mean_squared_error(labels, values))
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, values))


def test_a_metric_that_the_rows_do_not_define_is_none() -> None:
    one_class = compute_metrics("binary_classification", np.zeros(5, dtype=int), np.full(5, 0.2), (0, 1), 0.5)
    assert one_class["roc_auc"] is None
    assert one_class["recall"] is None
    assert one_class["accuracy"] == 1.0
    assert compute_metrics("regression", np.ones(3), np.ones(3), (), 0.5)["r2"] is None


def test_calibration_error_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1, 0, 1, 1])
    scores = np.array([0.25] * 4 + [0.75] * 4)
    found = compute_metrics("binary_classification", labels, scores, (0, 1), 0.5)["expected_calibration_error"]
    assert found == pytest.approx(0.5 * abs(0.5 - 0.25))
    points = calibration_curve(labels, scores, 2)
    assert [(point.mean_probability, point.positive_share, point.rows) for point in points] == [(0.25, 0.5, 4), (0.75, 0.75, 4)]


def test_bins_have_equal_frequency_and_hold_every_row() -> None:
    scores = np.random.default_rng(0).beta(1, 8, 1000)
    points = calibration_curve((scores > 0.1).astype(int), scores, 10)
    assert [point.rows for point in points] == [100] * 10
    constant = calibration_curve(np.array([0, 1]), np.array([0.3, 0.3]), 10)
    assert [(point.rows, point.positive_share) for point in constant] == [(2, 0.5)]


def test_every_metric_has_a_direction() -> None:
    directions = {name: greater_is_better(name) for problem in PROBLEMS for name in metric_names(problem)}
    assert directions["roc_auc"]
    assert not directions["log_loss"]
    with pytest.raises(ValueError, match="Unknown metric 'auc': did you mean roc_auc"):
        greater_is_better("auc")
