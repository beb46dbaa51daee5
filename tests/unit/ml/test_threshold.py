import numpy as np
import pytest
from sklearn import metrics

from mlops_assets.ml.threshold import METRICS, choose_threshold, negative_cost

SKLEARN = {
    "f1": metrics.f1_score,
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
}


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    scores = np.round(random.random(200), 2)
    return (random.random(200) < scores**2).astype(np.int64), scores


@pytest.mark.parametrize("name", METRICS)
def test_no_threshold_is_better(name: str, scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = scored
    chosen = choose_threshold(labels, scores, METRICS[name])
    tried = [SKLEARN[name](labels, scores >= threshold) for threshold in np.linspace(0, 1.005, 202)]
    assert chosen.value == pytest.approx(max(tried))
    assert SKLEARN[name](labels, scores >= chosen.threshold) == pytest.approx(chosen.value)


def test_the_costs_decide() -> None:
    # Probabilities that are true: acting pays from cost(false positive) / (both costs) on.
    random = np.random.default_rng(1)
    scores = random.random(50_000)
    labels = (random.random(50_000) < scores).astype(np.int64)
    assert choose_threshold(labels, scores, negative_cost(1, 4)).threshold == pytest.approx(0.2, abs=0.03)
    assert choose_threshold(labels, scores, negative_cost(3, 1)).threshold == pytest.approx(0.75, abs=0.03)
    cost = -choose_threshold(labels, scores, negative_cost(1, 4)).value
    decided = scores >= 0.2
    assert cost == pytest.approx(np.mean(decided & (labels == 0)) + 4 * np.mean(~decided & (labels == 1)), abs=0.002)


def test_all_or_none_can_be_the_best_choice() -> None:
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.2, 0.3, 0.4, 0.5])
    assert choose_threshold(labels, scores, negative_cost(0.01, 100)).threshold == 0
    assert choose_threshold(labels, scores, negative_cost(100, 0.01)).threshold > 0.5


def test_one_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows of both classes"):
        choose_threshold(np.ones(3, dtype=np.int64), np.array([0.1, 0.2, 0.3]), METRICS["f1"])
