"""Metrics by weights: a row of weight two is two rows, and one of weight none is none."""

import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_assets.ml import weighted_metrics
from mlops_assets.ml.weighted_metrics import WeightedMetrics, compute
from mlops_assets.schema.metric_names import metric_names
from mlops_assets.schema.problem import PROBLEMS, Problem

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


@pytest.mark.parametrize("problem", PROBLEMS)
def test_all_rows_of_a_block_have_its_weight(problem: Problem) -> None:
    random = np.random.default_rng(0)
    blocks, weights = random.integers(0, 7, 300), random.integers(0, 3, (20, 7)).astype(float)
    # The seventh weighting has rows of few blocks, the eighth none; a score is that of several rows.
    weights[6, 2:], weights[7] = 0, 0
    rows = {
        "binary_classification": metrics(random.integers(0, 2, 300), random.integers(1, 20, 300) / 20),
        "multiclass_classification": WeightedMetrics(
            "multiclass_classification", random.integers(0, 3, 300), np.round(random.dirichlet([1, 1, 1], 300), 1), (0, 1, 2), 0.5
        ),
        "regression": WeightedMetrics("regression", random.normal(size=300), random.normal(size=300), (), 0.5),
    }[problem]
    names = metric_names(problem)
    by_row = rows.of(weights[:, blocks], names)
    by_block = compute(rows.weighted(names, blocks), weights)
    assert {*by_row} == {*by_block} == {*names}
    for name, values in by_row.items():
        np.testing.assert_allclose(by_block[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
        assert np.isnan(values[7])


def test_a_metric_of_rows_and_a_ranking_of_many_blocks_get_the_weight_of_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    rows, blocks = metrics(random.integers(0, 2, 100), random.random(100)), random.integers(0, 5, 100)
    weights = random.integers(0, 3, (4, 5)).astype(float)
    expected = rows.of(weights[:, blocks], ("roc_auc", "accuracy"))
    monkeypatch.setattr(weighted_metrics, "_MOST_COUNTS", 100)
    hits = rows.is_right
    monkeypatch.setitem(rows._prepared, "accuracy", lambda weights: (weights @ hits) / weights.sum(axis=1))
    for name, values in compute(rows.weighted(("roc_auc", "accuracy"), blocks), weights).items():
        assert values == pytest.approx(expected[name])


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
