"""The metrics that a YAML file may name, and their registry. Imports nothing heavy: YAML files are validated with it.

The metrics of the platform are in `mlops_assets/ml/metrics.py`. Those of a team are named by import path or are entry points of the group
`mlops_assets.metrics`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from mlops_assets.schema.problem import Problem
from mlops_assets.schema.registry import Registry

Constant = Literal["mean", "median"]

Aspect = Literal["ranking", "calibration", "loss", "decisions"]
"""The property of predictions that a metric measures; the loss depends on all of them."""

Bounds = tuple[float | None, float | None]
"""The least and the greatest value of a metric; None: there is none."""


@runtime_checkable
class Metric(Protocol):
    """A number that evaluates predictions of `problems`.

    Called with the evaluated rows (`mlops_assets.ml.weighted_metrics.WeightedMetrics`) it prepares what does not depend on their weights, and
    returns a function of weights [weightings, rows] to the metric of each weighting [weightings], NaN where the metric is not defined.

    `constant` is the statistic of the training labels that a naive prediction takes. `biased_upwards`: every disturbance of the rows raises
    the metric, as it does a distance that cannot be negative; its intervals are corrected for that.
    """

    problems: Collection[Problem]
    greater_is_better: bool
    constant: Constant
    biased_upwards: bool

    def __call__(self, rows: Any) -> Callable[[Any], Any]:
        """The metric of `rows` as a function of their weights."""
        ...


@dataclass(frozen=True)
class FunctionMetric:
    """A metric that is a function. A gate that asks for a value beyond `bounds` is refused.

    `effect` is the least change that matters, in the metric's own units; None: `least_effect` derives it.
    """

    function: Callable[[Any], Callable[[Any], Any]]
    problems: Collection[Problem]
    greater_is_better: bool
    constant: Constant
    biased_upwards: bool
    bounds: Bounds
    aspect: Aspect
    effect: float | None

    def __call__(self, rows: Any) -> Callable[[Any], Any]:
        """The metric of `rows` as a function of their weights."""
        return self.function(rows)


def metric(
    *,
    problems: Collection[Problem],
    greater_is_better: bool,
    constant: Constant = "mean",
    biased_upwards: bool = False,
    bounds: Bounds = (None, None),
    aspect: Aspect = "loss",
    effect: float | None = None,
) -> Callable[[Callable[[Any], Callable[[Any], Any]]], FunctionMetric]:
    """Declare the function below as a metric; the arguments are those of `FunctionMetric`."""
    return lambda function: FunctionMetric(
        function, tuple(problems), greater_is_better, constant, biased_upwards, bounds, aspect, effect
    )


METRICS = Registry("metric", group="mlops_assets.metrics", builtin="mlops_assets.ml.metrics", protocol=Metric)  # type: ignore[type-abstract]


def metric_names(problem: Problem) -> tuple[str, ...]:
    """The metrics of `problem`: the built-in and the installed ones."""
    return tuple(name for name in METRICS.names() if problem in METRICS.get(name).problems)


def check_metric(name: str, problem: Problem, path: tuple[str | int, ...]) -> None:
    """Raise ConfigurationError unless `name` is a metric of `problem`."""
    from mlops_assets.schema.configuration_errors import ConfigurationError, nearest

    if ":" in name or name in METRICS.names():
        if problem in METRICS.check(name, path).problems:
            return
        hint = f"allowed: {', '.join(metric_names(problem))}"
    else:
        hint = f"{nearest(name, list(metric_names(problem)))}, or the import path of your own, such as my_team.metrics:profit"
    raise ConfigurationError(path, f"{name!r} is no metric of {problem}; {hint}")


def metric_bounds(metric: str) -> Bounds:
    """The least and the greatest value that `metric` can have. Raises ValueError on an unknown metric."""
    return getattr(METRICS.get(metric), "bounds", (None, None))


def metric_aspect(metric: str) -> Aspect:
    """The property of predictions that `metric` measures. Raises ValueError on an unknown metric."""
    return getattr(METRICS.get(metric), "aspect", "loss")


_LEAST_EFFECT = 0.005


def least_effect(metric: str, value: float, share: float) -> float:
    """The least change of `metric` from `value` that matters, where its declaration states none.

    It is `share` of the distance from the perfect value, so that 0.97 of 1 is held to a closer limit than 0.75; at least 0.005 of a metric
    between two bounds.
    """
    declared = getattr(METRICS.get(metric), "effect", None)
    if declared is not None:
        return float(declared)
    effect = share * distance_from_perfect(metric, value)
    return effect if None in metric_bounds(metric) else max(effect, _LEAST_EFFECT)


def distance_from_perfect(metric: str, value: float) -> float:
    """How far `value` is from the best that `metric` can have; of a metric without a best value, its own size."""
    least, greatest = metric_bounds(metric)
    perfect = greatest if greater_is_better(metric) else least
    return abs(value if perfect is None else perfect - value)


def greater_is_better(metric: str) -> bool:
    """Whether a higher value of `metric` is better. Raises ValueError, with the nearest names, on an unknown metric."""
    return METRICS.get(metric).greater_is_better
