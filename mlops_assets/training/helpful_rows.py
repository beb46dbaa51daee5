"""The rows that a training fits: those of its window, and those from before it where they do not make the model worse.

Where the relation of label and features turned since, old rows hold a model back. The average is fitted with and without them on a sample, as
the policies that are compared do (`ml/earlier_rows.py`), and both are judged on the hold-out, which neither has seen.
"""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import stream_histories
from mlops_assets.training.labelled_stream import solution_models

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_ROWS = 100_000
"""Of training: what rows are worth is seen on so many."""


@dataclass(frozen=True)
class HelpfulRows:
    """The `rows` to fit, and in words what became of those from before the window."""

    rows: "pa.Table"
    earlier: str


def helpful_rows(
    inputs: SolutionInputs, earlier: "pa.Table", train: "pa.Table", holdout: "pa.Table", training_date: date
) -> HelpfulRows:
    """Return the rows of `earlier` and `train` in order of time, or those of `train` alone where the average of both loses more beyond chance.

    Where they cannot be compared, as where a short history holds one class alone, the earlier rows are kept, and why is said.
    """
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.earlier_rows import compare_earlier_rows
    from mlops_assets.ml.loss_comparison import row_blocks

    rows, kept = pa.concat_tables([earlier, train]), f"{earlier.num_rows:,} are fitted on" if earlier.num_rows else "none"
    if not earlier.num_rows or not holdout.num_rows:
        return HelpfulRows(rows, kept)
    step = -(-rows.num_rows // _MOST_ROWS)
    sample = rows.take(np.arange(0, rows.num_rows, step))
    models = solution_models(inputs, pa.concat_tables([sample, holdout]), folder=None, identity="")
    training = inputs.solution.training
    start, first = (subtract_duration(training_date, span) for span in (training.window, training.holdout))
    places = np.arange(sample.num_rows, sample.num_rows + holdout.num_rows)
    days = models.stream.days[places]
    # Up to the hold-out the window is shorter by it.
    histories = stream_histories(inputs.solution, window_days=(first - start).days)
    try:
        difference = compare_earlier_rows(models, histories, first, places, row_blocks(days.astype(int), places))
    except ValueError as error:
        return HelpfulRows(rows, f"{kept}; not compared with the window alone: {error}")
    if difference is None:
        return HelpfulRows(rows, f"{kept}; the hold-out is too short to compare")
    compared = (
        f"with them the loss on the {difference.rows:,} rows of the hold-out changes by {difference.value:+.4f} "
        f"({difference.low:+.4f} to {difference.high:+.4f})"
    )
    if difference.is_worse:
        return HelpfulRows(train, f"none of {earlier.num_rows:,} is fitted on: {compared}")
    return HelpfulRows(rows, f"{kept}: {compared}")
