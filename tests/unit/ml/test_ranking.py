"""The metrics of a ranking, with weights of rows and of blocks: those of scikit-learn."""

import numpy as np
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from mlops_assets.ml.ranking import Ranking

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]) | st.floats(0.01, 0.99), st.integers(0, 3)),
    min_size=2,
    max_size=25,
)


@settings(max_examples=examples(40))
@given(rows=ROWS, block_weights=st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_the_ranking_is_that_of_scikit_learn(rows: list[tuple[int, float, int]], block_weights: list[int]) -> None:
    labels, scores, values = (np.array(column) for column in zip(*rows, strict=True))
    ranking = Ranking.of(labels, scores)
    # The third value of a row is its weight, and then the block that gives it one.
    check(labels, scores, values.astype(float), ranking.metrics(values[None, :].astype(float)))
    counted, weights = ranking.count(values), np.array([block_weights[: values.max() + 1]], dtype=float)
    of_blocks = {"roc_auc": counted.roc_auc(weights), "average_precision": counted.average_precision(weights)}
    check(labels, scores, weights[0, values], of_blocks)


def check(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, found: dict[str, np.ndarray]) -> None:
    if not weights[labels == 1].sum() or not weights[labels == 0].sum():
        assert np.isnan(found["roc_auc"][0])
        assert np.isnan(found["average_precision"][0])
        return
    np.testing.assert_allclose(found["roc_auc"][0], roc_auc_score(labels, scores, sample_weight=weights), atol=1e-12)
    expected = average_precision_score(labels, scores, sample_weight=weights)
    np.testing.assert_allclose(found["average_precision"][0], expected, atol=1e-12)
