"""Metrics by weights: a row of weight two is two rows, and one of weight none is none."""

import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_assets.ml.weighted_metrics import Ranking, WeightedMetrics
from mlops_assets.schema.metric_names import metric_names

BINARY = metric_names("binary_classification")
ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]) | st.floats(0.01, 0.99), st.integers(0, 3)),
    min_size=2,
    max_size=25,
)


def metrics(labels: np.ndarray, scores: np.ndarray) -> WeightedMetrics:
    return WeightedMetrics("binary_classification", labels, scores, (0, 1), 0.5)


# The calibration error is left out: its bins are those of the rows, whatever their weights.
@pytest.mark.parametrize("name", [name for name in BINARY if name != "expected_calibration_error"])
@settings(max_examples=examples(20))
@given(rows=ROWS)
def test_weights_are_repetitions(name: str, rows: list[tuple[int, float, int]]) -> None:
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    repeated = np.repeat(np.arange(len(rows)), weights)
    assume(len(repeated))
    [weighted] = metrics(labels, scores).of(weights[None, :].astype(float), [name])[name]
    plain = metrics(labels[repeated], scores[repeated]).values([name])[name]
    if plain is None:
        assert np.isnan(weighted)
    else:
        assert weighted == pytest.approx(plain, abs=1e-9)


@settings(max_examples=examples(20))
@given(ROWS)
def test_the_ranking_is_that_of_scikit_learn(rows: list[tuple[int, float, int]]) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    weights = weights.astype(float)
    found = Ranking.of(labels, scores).metrics(weights[None, :])
    positive, negative = weights[labels == 1].sum(), weights[labels == 0].sum()
    if not positive or not negative:
        assert np.isnan(found["roc_auc"][0])
        return
    assert found["roc_auc"][0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    assert found["average_precision"][0] == pytest.approx(average_precision_score(labels, scores, sample_weight=weights))


def test_many_weightings_are_each_of_their_own() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), random.random(200)
    weights = random.integers(0, 3, (5, 200)).astype(float)
    together = metrics(labels, scores).of(weights, BINARY)
    for position in range(5):
        alone = metrics(labels, scores).of(weights[position : position + 1], BINARY)
        for name, values in together.items():
            assert values[position] == pytest.approx(alone[name][0])


def test_a_class_that_the_model_does_not_know_is_named() -> None:
    evaluated = WeightedMetrics(
        "multiclass_classification", np.array(["a", "new"]), np.array([[0.5, 0.5], [1, 0]]), ("a", "b"), 0.5
    )
    with pytest.raises(ValueError, match="The model knows no class new: train it on data that holds every class"):
        evaluated.values(["accuracy"])
