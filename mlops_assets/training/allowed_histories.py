"""The histories that a solution allows, on the rows of its training dataset: up to the newest row, as a refit has it too."""

from typing import TYPE_CHECKING

from mlops_assets.ml.history import History
from mlops_assets.schema.duration import maximum_days
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

WHOLE_WINDOW = History()
"""Every row of the training window, each as much as the others."""


def allowed_histories(solution: Solution) -> tuple[History, ...]:
    """Return the histories of the YAML file; without any, the whole window."""
    return tuple(
        History(
            days=maximum_days(history.span) if history.span else None,
            half_life=maximum_days(history.half_life) if history.half_life else None,
        )
        for history in solution.training.histories
    ) or (WHOLE_WINDOW,)


def rows_of_history(inputs: SolutionInputs, rows: "pa.Table", history: History) -> "pa.Table":
    """Return the `rows` that are not older than the history."""
    if history.days is None:
        return rows
    return rows.filter(_ages(inputs, rows) < history.days)


def history_weights(inputs: SolutionInputs, rows: "pa.Table", history: History) -> "np.ndarray | None":
    """Return how much each row counts; None where all count the same."""
    return None if history.half_life is None else 0.5 ** (_ages(inputs, rows) / history.half_life)


def _ages(inputs: SolutionInputs, rows: "pa.Table") -> "np.ndarray":
    """The age of each row in days, from the newest one on."""
    times = rows.column(inputs.solution.spine.prediction_time).to_numpy()
    return (times.max() - times).astype("timedelta64[s]").astype(float) / 86_400
