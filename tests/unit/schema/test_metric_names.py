"""Metrics as YAML files name them."""

from typing import get_args

import numpy as np
import pytest

from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.metric_names import METRICS, check_metric, greater_is_better, metric, metric_names
from mlops_assets.schema.problem import Problem


@pytest.mark.parametrize("problem", get_args(Problem))
def test_each_problem_has_metrics_that_it_accepts(problem: Problem) -> None:
    names = metric_names(problem)
    assert names
    for name in names:
        check_metric(name, problem, ())


def test_a_metric_of_another_problem_is_refused_with_those_of_this_one() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_metric("roc_auc", "regression", ("training", "metric"))
    assert caught.value.path == ("training", "metric")
    assert caught.value.message.startswith("'roc_auc' is no metric of regression; allowed: ")
    assert set(metric_names("regression")) == set(caught.value.message.rpartition("allowed: ")[2].split(", "))


def test_a_slip_of_the_pen_is_refused_with_the_nearest_and_the_way_to_an_own_one() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean roc_auc.*, or the import path of your own, such as"):
        check_metric("roc_acu", "binary_classification", ())


def test_better_is_more_of_what_counts_hits_and_less_of_what_counts_misses() -> None:
    assert greater_is_better("roc_auc")
    assert not greater_is_better("brier_score")
    with pytest.raises(ValueError, match="Unknown metric 'roc'"):
        greater_is_better("roc")


def test_a_declared_function_is_a_metric() -> None:
    @metric(problems=["regression"], greater_is_better=False)
    def worst(rows: np.ndarray):
        return lambda weights: (weights * rows).max(axis=1)

    assert METRICS._suits(worst)
    assert (worst.problems, worst.greater_is_better, worst.constant, worst.biased_upwards) == (
        ("regression",),
        False,
        "mean",
        False,
    )
    assert worst(np.array([1.0, 3.0]))(np.array([[1, 1], [1, 0]])).tolist() == [3.0, 1.0]
