from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa

from mlops_assets.ml.evaluation import Evaluation, Resampling, evaluate
from mlops_assets.ml.performance import Maturity, estimation_error, performance_rows
from mlops_assets.ml.performance_estimation import Estimate
from mlops_assets.ml.reference import WHOLE
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.schema.metric_names import metric_names


@cache
def evaluated(noise: float, rows: int = 3000) -> Evaluation:
    """A binary model whose score has `noise`, in two slices."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, rows)
    return evaluate(
        problem="binary_classification",
        metrics=metric_names("binary_classification"),
        labels=labels,
        predictions=1 / (1 + np.exp(-(labels * 2 - 1 + noise * random.normal(size=rows)))),
        training_labels=labels,
        classes=(0, 1),
        threshold=0.5,
        slices=pa.table({"place": random.choice(["north", "south"], rows)}),
        minimum_slice_rows=200,
        resampling=Resampling(seed=0, slice_metrics=("roc_auc",)),
    )


def rows_of(
    *, estimated: float, realised: Evaluation | None, complete: bool, metric: str = "roc_auc", tolerance: float = 0.05
) -> dict[str | None, PerformanceRow]:
    found = performance_rows(
        "w",
        metrics=(metric,),
        maturity={WHOLE: Maturity(3000, 2900, complete), "place = north": Maturity(1500, 1400, complete)},
        estimates={(WHOLE, metric): Estimate(estimated, estimated - 0.01, estimated + 0.01)},
        realised=realised,
        reference=evaluated(1.0),
        tolerance=tolerance,
    )
    return {row.slice: row for row in found}


USUAL = float(evaluated(1.0).metrics["roc_auc"] or 0)


def test_until_a_window_is_complete_the_estimate_decides() -> None:
    partial = rows_of(estimated=USUAL, realised=evaluated(3.0), complete=False)[None]
    assert (partial.alert, partial.complete) == (False, False)
    assert partial.realised is not None
    assert rows_of(estimated=USUAL - 0.1, realised=None, complete=False)[None].alert
    assert not rows_of(estimated=USUAL - 0.1, realised=evaluated(1.0), complete=True)[None].alert
    assert rows_of(estimated=USUAL, realised=evaluated(3.0), complete=True)[None].alert


def test_a_loss_within_the_tolerance_or_within_chance_is_no_alert() -> None:
    assert not rows_of(estimated=USUAL - 0.02, realised=None, complete=False)[None].alert
    assert rows_of(estimated=USUAL - 0.02, realised=None, complete=False, tolerance=0.01)[None].alert
    # The bounds reach back to the hold-out's value.
    assert not rows_of(estimated=USUAL - 0.009, realised=None, complete=False, tolerance=0.001)[None].alert


def test_where_smaller_is_better_worse_is_greater() -> None:
    usual = float(evaluated(1.0).metrics["log_loss"] or 0)
    worse = rows_of(estimated=usual + 0.1, realised=None, complete=False, metric="log_loss")[None]
    assert worse.threshold is not None
    assert worse.threshold > usual
    assert worse.alert
    assert not rows_of(estimated=usual - 0.1, realised=None, complete=False, metric="log_loss")[None].alert


def test_slices_have_their_own_reference_and_interval() -> None:
    north = rows_of(estimated=USUAL, realised=evaluated(3.0), complete=True)["place = north"]
    assert north.reference != USUAL
    assert north.realised_lower is not None
    assert north.realised_upper is not None
    assert north.realised is not None
    assert north.realised_lower < north.realised < north.realised_upper
    assert north.alert


def test_an_estimate_that_missed_is_named_when_the_window_is_complete() -> None:
    row = rows_of(estimated=USUAL, realised=evaluated(3.0), complete=True)[None]
    assert row.realised is not None
    error = estimation_error(row, 0.05)
    assert error is not None
    assert error == row.realised - USUAL
    assert estimation_error(row, 0.9) is None
    assert estimation_error(replace(row, complete=False), 0.05) is None
    assert estimation_error(replace(row, realised=USUAL + 0.001), 0.0) is None
