"""Contributions of the features to one prediction: Shapley values, estimated by sampling.

The method is that of Strumbelj and Kononenko, "Explaining prediction models and individual predictions with feature contributions"
(Knowledge and Information Systems 41, 2014): walk from a background row to the explained row, one feature at a time in random order,
and credit each feature with the change of the prediction. Every order is walked backwards too (antithetic sampling), which
lowers the variance. Contributions add up to the prediction less the mean prediction of the background rows drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Contribution:
    """The contribution of one feature to the prediction, and its value; `standard_error` is the sampling error of the estimate."""

    feature: str
    value: object
    contribution: float
    standard_error: float


@dataclass(frozen=True)
class Explanation:
    """One prediction as `base` (mean prediction of the background) plus the contributions, the largest first.

    Of several classes it is the probability of `predicted_class`; with two classes or a number that is None.
    """

    prediction: float
    base: float
    contributions: tuple[Contribution, ...]
    predicted_class: str | None = None


def explain_row(
    predict: Callable[[pa.Table], np.ndarray], row: pa.Table, background: pa.Table, *, orders: int, seed: int
) -> Explanation:
    """Explain the prediction of `row` (one row) against rows drawn from `background` (the same columns).

    `predict` gives one number a row; it is called once, with 2 x `orders` x (features + 1) rows. Raises ValueError when `row` is not
    one row, or `background` has no rows.
    """
    if row.num_rows != 1 or background.num_rows == 0:
        raise ValueError(f"Explaining takes one row and some background, not {row.num_rows} and {background.num_rows} rows.")
    names = row.column_names
    walked, pairs = _walk(predict, row, background, orders=orders, seed=seed)
    predictions, pairs = walked[..., 0], pairs[0, ..., 0]
    means, errors = pairs.mean(axis=0), pairs.std(axis=0, ddof=1) / np.sqrt(orders) if orders > 1 else np.full(len(names), np.inf)
    contributions = [
        Contribution(
            feature=name,
            value=row.column(name)[0].as_py(),
            contribution=float(means[number]),
            standard_error=float(errors[number]),
        )
        for number, name in enumerate(names)
    ]
    return Explanation(
        prediction=float(predictions[0, -1]),
        base=float(predictions[:, 0].mean()),
        contributions=tuple(sorted(contributions, key=lambda contribution: -abs(contribution.contribution))),
    )


def absolute_contributions(
    predict: Callable[[pa.Table], np.ndarray], rows: pa.Table, background: pa.Table, *, seed: int
) -> np.ndarray:
    """The size of the contribution of each feature to the prediction of each of `rows` [rows, features], by one order and its reverse.

    `predict` gives one number a row or several, whose sizes are averaged. Features are the columns of `rows`.
    """
    _, pairs = _walk(predict, rows, background, orders=1, seed=seed)
    return np.abs(pairs[:, 0]).mean(axis=-1)


def _walk(
    predict: Callable[[pa.Table], np.ndarray], rows: pa.Table, background: pa.Table, *, orders: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The predictions of `orders` walks and their reverses for each of `rows` [walks, steps, outputs], and the changes by feature.

    The latter are means of a walk and its reverse [rows, orders, features, outputs].
    """
    names, count = rows.column_names, rows.num_rows * orders
    generator = np.random.default_rng(seed)
    drawn = generator.integers(background.num_rows, size=count).repeat(2)
    forward = np.array([generator.permutation(len(names)) for _ in range(count)])
    # Each order and its reverse, on the same background row.
    walks = np.stack([forward, forward[:, ::-1]], axis=1).reshape(2 * count, len(names))
    # ranks[walk, feature]: the step at which the walk takes over the feature from the explained row.
    ranks = np.argsort(walks, axis=1)
    steps = len(names) + 1
    is_explained = ranks[:, None, :] < np.arange(steps)[None, :, None]
    explained = background.num_rows + np.arange(rows.num_rows).repeat(2 * orders)
    positions = np.where(is_explained, explained[:, None, None], drawn[:, None, None]).reshape(-1, len(names))
    together = pa.concat_tables([background.select(names), rows]).combine_chunks()
    mixed = pa.table({name: together.column(name).take(pa.array(positions[:, number])) for number, name in enumerate(names)})
    predictions = np.asarray(predict(mixed), dtype=np.float64).reshape(2 * count, steps, -1)
    changes = np.take_along_axis(np.diff(predictions, axis=1), ranks[..., None], axis=1)
    return predictions, changes.reshape(rows.num_rows, orders, 2, len(names), -1).mean(axis=2)
