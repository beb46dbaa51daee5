import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.bootstrap import Interval, number_blocks
from mlops_assets.ml.comparison import MetricDifference, compare_models
from mlops_assets.ml.evaluation import Resampling, evaluate
from mlops_assets.ml.weighted_metrics import WeightedMetrics
from mlops_assets.schema.metric_names import metric_names

RANDOM = np.random.default_rng(8)
LABELS = (RANDOM.random(3000) < 0.3).astype(np.int64)
GOOD = np.clip(0.3 + 0.2 * (LABELS - 0.3) + RANDOM.normal(0, 0.15, 3000), 0.01, 0.99)
EQUAL = np.clip(GOOD + RANDOM.normal(0, 0.005, 3000), 0.01, 0.99)
WORSE = np.clip(GOOD + RANDOM.normal(0, 0.2, 3000), 0.01, 0.99)


def evaluated(predictions: np.ndarray) -> WeightedMetrics:
    return WeightedMetrics("binary_classification", LABELS, predictions, (0, 1), 0.5)


RESAMPLING = Resampling(seed=0, slice_metrics=())


def difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, MetricDifference]:
    evaluation = evaluate(
        problem="binary_classification",
        metrics=metric_names("binary_classification"),
        labels=LABELS,
        predictions=ours,
        training_labels=LABELS,
        classes=(0, 1),
        threshold=0.5,
        slices=pa.table({}),
        minimum_slice_rows=1,
        resampling=RESAMPLING,
    )
    return compare_models(evaluation, evaluated(theirs), names=("roc_auc", "log_loss"), resampling=RESAMPLING)


def test_a_worse_model_is_worse_and_an_equal_one_is_not() -> None:
    for name, metric in difference(WORSE, GOOD).items():
        assert metric.is_worse(0.005), name
        assert not metric.is_better
    for metric in difference(EQUAL, GOOD).values():
        assert not metric.is_worse(0.0005)
    for metric in difference(GOOD, WORSE).values():
        assert not metric.is_worse(0)
        assert metric.is_better


def test_a_model_does_not_differ_from_itself() -> None:
    metric = difference(GOOD, GOOD)["roc_auc"]
    assert (metric.value, metric.interval) == (0, Interval(0, 0))
    assert not metric.is_worse(0)
    assert not metric.is_better
    # Asked for an improvement, the same model is not enough.
    assert metric.is_worse(-0.01)


def test_the_difference_the_other_way_round_is_its_negative() -> None:
    for name, metric in difference(GOOD, WORSE).items():
        expected = difference(WORSE, GOOD)[name]
        assert (metric.reversed.ours, metric.reversed.theirs) == (expected.ours, expected.theirs)
        assert (metric.reversed.value, metric.reversed.loss) == (expected.value, expected.loss)
        assert metric.reversed.interval is not None
        assert expected.interval is not None
        assert metric.reversed.interval.low == pytest.approx(expected.interval.low)
        assert metric.reversed.interval.high == pytest.approx(expected.interval.high)


def test_days_on_which_either_model_is_better_by_turns_are_chance() -> None:
    """Twelve days of 300 rows; each has a level of its own, which one of two equal models has seen coming."""
    random = np.random.default_rng(3)
    days = np.repeat(np.arange(12), 300)
    called_worse = {"rows": 0, "days": 0}
    for _ in range(40):
        level = random.normal(0, 1, 12)[days]
        labels = level + random.normal(0, 1, len(days))
        ours, theirs = (level + random.normal(0, 1, 12)[days] for _ in range(2))
        for name, blocks in (("rows", None), ("days", number_blocks(days))):
            resampling = Resampling(seed=0, slice_metrics=(), blocks=blocks)
            evaluation = evaluate(
                problem="regression",
                metrics=("mean_absolute_error",),
                labels=labels,
                predictions=ours,
                training_labels=labels,
                classes=(),
                threshold=0.5,
                slices=pa.table({}),
                minimum_slice_rows=1,
                resampling=resampling,
            )
            other = WeightedMetrics("regression", labels, theirs, (), 0.5)
            [metric] = compare_models(evaluation, other, names=("mean_absolute_error",), resampling=resampling).values()
            called_worse[name] += metric.is_worse(0) or metric.is_better
    # At a confidence of 95 % one in twenty is.
    assert called_worse["rows"] > 25
    assert called_worse["days"] <= 5


@pytest.mark.parametrize(
    ("value", "interval", "tolerance", "worse"),
    [
        (-0.006, Interval(-0.010, -0.002), 0.005, True),
        (-0.005, Interval(-0.009, -0.001), 0.005, False),  # at the tolerance, not over it
        (-0.004, Interval(-0.005, -0.003), 0.005, False),  # certain, but tolerated
        (-0.020, Interval(-0.045, 0.005), 0.005, False),  # may be chance
        (-0.020, Interval(-0.045, -0.001), 0.005, True),
        (0.020, Interval(0.010, 0.030), 0.005, False),  # better
        (0.002, Interval(-0.001, 0.005), -0.010, True),  # better, but not by as much as asked for
        (0.008, Interval(-0.001, 0.017), -0.010, False),  # perhaps by as much as asked for
        (-0.020, None, 0.005, True),  # no interval: the value decides
        (None, None, 0.005, True),  # not defined
    ],
)
def test_the_rule_at_its_edges(value: float | None, interval: Interval | None, tolerance: float, worse: bool) -> None:
    greater_is_better = MetricDifference("roc_auc", 0.7, 0.7, value, interval)
    assert greater_is_better.is_worse(tolerance) is worse
    if value is not None:
        turned = None if interval is None else Interval(-interval.high, -interval.low)
        assert MetricDifference("log_loss", 0.5, 0.5, -value, turned).is_worse(tolerance) is worse
