import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.bootstrap import bootstrap, difference_interval, interval, number_blocks, replicate_count, resample
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import metric_names
from mlops_assets.schema.problem import PROBLEMS, Problem

CLASSES = {"binary_classification": (0, 1), "multiclass_classification": ("a", "b", "c"), "regression": ()}
BINNED = "expected_calibration_error"


def rows_of(problem: Problem, rows: int, seed: int) -> WeightedMetrics:
    """Random rows with ties among the scores, as trees give them."""
    random = np.random.default_rng(seed)
    if problem == "regression":
        labels = random.normal(50, 10, rows)
        predictions = labels + random.normal(0, 3, rows)
    elif problem == "multiclass_classification":
        labels = random.choice(np.array(CLASSES[problem], dtype=object), rows)
        predictions = random.dirichlet([1, 1, 1], rows).round(1) + 0.05
        predictions /= predictions.sum(axis=1, keepdims=True)
    else:
        labels = random.integers(0, 2, rows)
        predictions = np.clip(labels * 0.2 + random.random(rows), 0.05, 0.95).round(1)
    return WeightedMetrics(problem, labels, predictions, CLASSES[problem], 0.5)


@pytest.mark.parametrize("problem", PROBLEMS)
@settings(max_examples=examples(25))
@given(rows=st.integers(1, 40), seed=st.integers(0, 2**20))
def test_weights_give_the_metrics_of_the_rows_drawn(problem: Problem, rows: int, seed: int) -> None:
    evaluated = rows_of(problem, rows, seed)
    drawn = np.random.default_rng(seed + 1).integers(0, rows, rows)
    names = metric_names(problem)
    for chosen in (drawn, np.arange(rows)):
        weights = np.bincount(chosen, minlength=rows).astype(float)[None, :]
        found = {name: values[0] for name, values in evaluated.of(weights, names).items()}
        rows_drawn = WeightedMetrics(problem, evaluated.labels[chosen], evaluated.predictions[chosen], CLASSES[problem], 0.5)
        expected = rows_drawn.values(names)
        for name in names:
            if name == BINNED and chosen is drawn:
                continue  # its bins are those of all rows
            value = expected[name]
            assert np.isnan(found[name]) if value is None else found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_a_resample_draws_as_many_rows_as_there_are_and_always_the_same() -> None:
    weights = np.concatenate(list(resample(70_000, 5, 3)))
    assert weights.shape == (5, 70_000)
    assert (weights.sum(axis=1) == 70_000).all()
    assert (weights == np.concatenate(list(resample(70_000, 5, 3)))).all()
    assert not (weights[0] == weights[1]).all()
    # A row is drawn about Poisson(1) times.
    assert np.mean(weights == 0) == pytest.approx(np.exp(-1), abs=0.005)


def test_the_interval_is_that_of_scipy() -> None:
    evaluated = rows_of("regression", 400, 1)
    error = np.abs(evaluated.predictions - evaluated.labels)
    reference = stats.bootstrap(
        (error,), np.mean, n_resamples=4000, confidence_level=0.95, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    values = bootstrap(evaluated, names=("mean_absolute_error",), replicates=4000, seed=0)["mean_absolute_error"]
    found = interval("mean_absolute_error", float(error.mean()), values)
    assert found is not None
    width = reference.high - reference.low
    assert abs(found.low - reference.low) < 0.06 * width
    assert abs(found.high - reference.high) < 0.06 * width


def test_the_interval_is_that_of_a_plain_loop_over_scikit_learn() -> None:
    evaluated = rows_of("binary_classification", 150, 2)
    values = bootstrap(evaluated, names=("roc_auc",), replicates=200, seed=9)["roc_auc"]
    plain = []
    for weights in np.concatenate(list(resample(150, 200, 9))):
        rows = np.repeat(np.arange(150), weights.astype(int))
        plain.append(roc_auc_score(evaluated.labels[rows], evaluated.predictions[rows]))
    assert values == pytest.approx(plain)
    found = interval("roc_auc", float(roc_auc_score(evaluated.labels, evaluated.predictions)), values)
    assert found is not None
    assert [found.low, found.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]))


def test_the_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    # Two normal scores one apart: the true area is the chance that a positive is above a negative.
    truth = float(stats.norm.cdf(1 / np.sqrt(2)))
    covered = 0
    for seed in range(100):
        labels = (random.random(150) < 0.4).astype(int)
        scores = random.normal(size=150) + labels
        evaluated = WeightedMetrics("binary_classification", labels, scores, (0, 1), 0.5)
        found = interval(
            "roc_auc",
            float(roc_auc_score(labels, scores)),
            bootstrap(evaluated, names=("roc_auc",), replicates=300, seed=seed)["roc_auc"],
        )
        covered += found is not None and found.low <= truth <= found.high
    assert 88 <= covered <= 100


def test_a_calibration_error_lies_within_its_interval() -> None:
    random = np.random.default_rng(4)
    scores = random.random(3000)
    labels = (random.random(3000) < scores).astype(int)
    evaluated = WeightedMetrics("binary_classification", labels, scores, (0, 1), 0.5)
    error = evaluated.values((BINNED,))[BINNED]
    assert error is not None
    values = bootstrap(evaluated, names=(BINNED,), replicates=500, seed=0)[BINNED]
    # Calibrated rows: nearly every resample is off by more than the rows are.
    assert np.mean(values > error) > 0.8
    found = interval(BINNED, error, values)
    assert found is not None
    assert 0 <= found.low < error < found.high < 0.05


def test_the_paired_difference_is_narrower_than_the_intervals_of_both() -> None:
    random = np.random.default_rng(6)
    labels = (random.random(2000) < 0.3).astype(int)
    good = random.normal(size=2000) + labels
    worse = good + random.normal(0, 0.4, 2000)
    ours, theirs = (
        bootstrap(WeightedMetrics("binary_classification", labels, each, (0, 1), 0.5), names=("roc_auc",), replicates=500, seed=1)
        for each in (worse, good)
    )
    estimates = [float(roc_auc_score(labels, each)) for each in (worse, good)]
    difference = difference_interval("roc_auc", estimates[0] - estimates[1], ours["roc_auc"], theirs["roc_auc"])
    single = interval("roc_auc", estimates[0], ours["roc_auc"])
    assert difference is not None
    assert single is not None
    assert difference.low < estimates[0] - estimates[1] < difference.high < 0
    assert difference.high - difference.low < (single.high - single.low) / 2


def test_blocks_are_drawn_as_wholes() -> None:
    days = np.repeat(
        np.array(["2013-01-03", "2013-01-01", "2013-01-07", "2013-01-05", "2013-01-04", "2013-01-09"]), [1, 2, 3, 4, 5, 6]
    )
    blocks = number_blocks(days)
    assert blocks is not None
    assert blocks.tolist() == [1] + 2 * [0] + 3 * [4] + 4 * [3] + 5 * [2] + 6 * [5]
    weights = np.concatenate(list(resample(len(days), 500, 1, blocks)))
    assert weights.shape == (500, 6)
    assert (weights.sum(axis=1) == 6).all()
    assert number_blocks(days[days < "2013-01-07"]) is None


def test_the_interval_covers_the_true_value_of_rows_that_share_the_cause_of_their_day() -> None:
    random = np.random.default_rng(2)
    days, covered = np.repeat(np.arange(10), 40), {"rows": 0, "days": 0}
    for seed in range(100):
        errors = random.normal(0, 1, 10)[days] + random.normal(0, 1, len(days))
        evaluated = WeightedMetrics("regression", np.zeros(len(days)), errors, (), 0.5)
        for name, blocks in (("rows", None), ("days", number_blocks(days))):
            value = evaluated.values(("mean_absolute_error",))["mean_absolute_error"]
            values = bootstrap(evaluated, names=("mean_absolute_error",), replicates=300, seed=seed, blocks=blocks)
            found = interval("mean_absolute_error", value, values["mean_absolute_error"], blocks)
            # The mean size of a normal error whose variance is that of the day and of the row together.
            covered[name] += found is not None and found.low <= np.sqrt(2) * np.sqrt(2 / np.pi) <= found.high
    assert covered["rows"] < 75
    assert covered["days"] >= 88


def test_what_the_rows_do_not_define_has_no_interval() -> None:
    one_class = WeightedMetrics("binary_classification", np.zeros(50, int), np.linspace(0, 1, 50), (0, 1), 0.5)
    values = bootstrap(one_class, names=("roc_auc", "accuracy"), replicates=50, seed=0)
    assert np.isnan(values["roc_auc"]).all()
    assert interval("roc_auc", None, values["roc_auc"]) is None
    assert interval("accuracy", 0.5, values["accuracy"]) is not None
    assert difference_interval("roc_auc", None, values["roc_auc"], values["roc_auc"]) is None
    # A single positive is missing from a third of the resamples.
    assert interval("roc_auc", 0.7, np.array([0.7, np.nan, 0.8])) is None


def test_many_rows_get_fewer_replicates() -> None:
    assert [replicate_count(rows) for rows in (10, 14_000, 60_000, 10**7)] == [1000, 1000, 500, 200]
