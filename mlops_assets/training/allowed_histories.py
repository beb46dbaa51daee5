"""The histories that a solution fits, on the rows of its training dataset: up to the newest row, as a refit has it too."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mlops_assets.ml.history import History
from mlops_assets.schema.column_names import SPLIT
from mlops_assets.schema.configuration_errors import method_parameters
from mlops_assets.schema.duration import maximum_days
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

WHOLE_DATASET = History()
"""Every row of the training dataset, each as much as the others."""

_HALF_LIVES = 3
"""Half-lives in the window, of the history that is averaged with the whole dataset where the YAML file names none."""

_EARLIER_ROWS = 100_000
"""Where the YAML file says nothing: a fit on them takes seconds, and gains little by more (ADR 0082)."""


def allowed_histories(solution: Solution) -> tuple[History, ...]:
    """Return the histories of the YAML file, whose models are averaged.

    Without any they are the whole dataset and, where the estimator takes weights and the table has time, the window by its recency.
    """
    named = solution.training.histories
    if named is not None:
        return tuple(
            History(
                days=maximum_days(history.span) if history.span else None,
                half_life=maximum_days(history.half_life) if history.half_life else None,
            )
            for history in named
        ) or (WHOLE_DATASET,)
    if not _weighs_by_recency(solution):
        return (WHOLE_DATASET,)
    return WHOLE_DATASET, History(half_life=max(maximum_days(solution.training.window) // _HALF_LIVES, 1))


def earlier_rows(solution: Solution) -> int:
    """Return how many rows from before the window a training dataset may have.

    Where the YAML file does not say, none without a history that follows what changes: fitted on old rows alone, a model lags.
    """
    if (stated := solution.training.earlier_rows) is not None:
        return stated
    return _EARLIER_ROWS if solution.training.histories is None and _weighs_by_recency(solution) else 0


def _weighs_by_recency(solution: Solution) -> bool:
    takes_weights = "sample_weight" in (method_parameters(solution.training.estimator.type, "fit") or ())
    return solution.spine.has_time and takes_weights


def stream_histories(solution: Solution, *, window_days: int) -> tuple[History, ...]:
    """Return the allowed histories as those of a stream of all labelled rows, of which the window and the earlier rows are a part."""
    earlier = earlier_rows(solution)
    return tuple(
        replace(history, days=history.days or window_days, earlier=earlier if history == WHOLE_DATASET else 0)
        for history in allowed_histories(solution)
    )


def history_weights(inputs: SolutionInputs, rows: "pa.Table", history: History) -> "np.ndarray":
    """Return how much each row counts, 0 for those that are older than the history. Only the whole dataset has rows of before the window."""
    import numpy as np

    weights = np.ones(rows.num_rows)
    if history == WHOLE_DATASET:
        return weights
    times = rows.column(inputs.solution.spine.prediction_time).to_numpy()
    ages = (times.max() - times).astype("timedelta64[s]").astype(float) / 86_400
    if SPLIT in rows.column_names:
        weights[rows.column(SPLIT).to_numpy() == "earlier"] = 0
    if history.half_life is not None:
        weights *= 0.5 ** (ages / history.half_life)
    if history.days is not None:
        weights *= ages < history.days
    return weights
