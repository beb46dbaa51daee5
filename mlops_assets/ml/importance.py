"""Permutation importance: how much worse a model gets when the values of one feature are shuffled among the rows.

Breiman, "Random Forests", Machine Learning 45 (2001). It asks what the model uses, not what causes the label: of two features that say the same,
each may look unimportant.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import FeatureSchema, categorical_matrix, numeric_matrix
from mlops_assets.schema.metric_names import greater_is_better

REPEATS = 5
_MOST_ROWS = 4000
_MOST_SCORED_ROWS = 300_000
"""Rows scored over all features and repeats, to bound the time; with many features the sample gets smaller."""


@dataclass(frozen=True)
class Importance:
    """By how much the metric got worse without `feature`: mean and standard deviation over the repeats."""

    feature: str
    loss: float
    deviation: float


@dataclass(frozen=True)
class Importances:
    """All features, the most important first, measured by `metric` on a sample of `rows` rows, shuffled `repeats` times."""

    metric: str
    rows: int
    repeats: int
    features: tuple[Importance, ...]


def permutation_importance(
    *,
    table: pa.Table,
    schema: FeatureSchema,
    metric: str,
    evaluate: Callable[[np.ndarray, np.ndarray, np.ndarray], float | None],
    seed: int,
    maximum_seconds: float,
) -> Importances | None:
    """The importance of the features of `schema`, columns of `table`.

    `evaluate` gives the value of `metric` for a sample of rows: the matrices of its numeric and categorical features, as `ml/matrix.py`
    makes them, and its positions in `table`. No further repeat begins after `maximum_seconds`: a model so slow gets fewer, at least one.
    None when the metric is not defined on the sample.
    """
    random = np.random.default_rng(seed)
    features = schema.names
    size = max(1, min(table.num_rows, _MOST_ROWS, _MOST_SCORED_ROWS // (REPEATS * len(features))))
    positions = np.sort(random.choice(table.num_rows, size=size, replace=False))
    sample = table.select(list(features)).take(pa.array(positions))
    numeric = numeric_matrix(sample, schema.numeric, schema.origins)
    categorical = categorical_matrix(sample, schema.categorical)
    columns = {name: numeric[:, place] for place, name in enumerate(schema.numeric)}
    columns |= {name: categorical[:, place] for place, name in enumerate(schema.categorical)}
    intact = evaluate(numeric, categorical, positions)
    if intact is None:
        return None
    sign = 1 if greater_is_better(metric) else -1
    losses = np.zeros((REPEATS, len(features)))
    repeats, began = 0, time.monotonic()
    while repeats < REPEATS and (repeats == 0 or time.monotonic() - began < maximum_seconds):
        for place, name in enumerate(features):
            column = columns[name]
            values = column.copy()
            column[:] = values[random.permutation(size)]
            value = evaluate(numeric, categorical, positions)
            column[:] = values
            losses[repeats, place] = sign * (intact - (intact if value is None else value))
        repeats += 1
    measured = losses[:repeats]
    importances = [
        Importance(feature=name, loss=float(measured[:, place].mean()), deviation=float(measured[:, place].std()))
        for place, name in enumerate(features)
    ]
    return Importances(
        metric=metric,
        rows=size,
        repeats=repeats,
        features=tuple(sorted(importances, key=lambda importance: (-importance.loss, importance.feature))),
    )
