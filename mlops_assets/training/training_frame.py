"""The rows of the spine that a training reads, with their features and their split: those of the window, and some from before it."""

from dataclasses import dataclass
from datetime import date

import duckdb

from mlops_assets.core.keys import TRAINING_DATE
from mlops_assets.feature_store.point_in_time import Frame
from mlops_assets.lake.sql import lake_name, quote, sql_moment
from mlops_assets.ml.splits import SPLIT_SQL
from mlops_assets.schema.column_names import HELD_OUT, SPLIT, internal
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import earlier_rows

_SPLIT = internal(SPLIT)
"""The split before it is chosen by: a condition would take a column of the data for the one of the same statement."""

_LARGEST_HASH = 2**64 - 1
"""What `hash` of DuckDB gives at most."""


def labelled_rows(inputs: SolutionInputs, training_date: date) -> str:
    """SQL condition on the spine: the rows of the training window whose label was known at the training date."""
    training, spine = inputs.solution.training, inputs.solution.spine
    if not spine.has_time:
        return f"{quote(inputs.solution.partitions.column)} = DATE '{training_date}' AND {inputs.is_labelled}"
    start, cutoff = inputs.midnight(subtract_duration(training_date, training.window)), sql_moment(inputs.midnight(training_date))
    return (
        f"{quote(spine.prediction_time)} >= {sql_moment(start)} AND {quote(spine.prediction_time)} < {cutoff} "
        f"AND {inputs.is_labelled} AND {quote(spine.label_time)} < {cutoff}"
    )


@dataclass(frozen=True)
class DrawnRows:
    """Rows of the spine from before the window: their first partition, and the SQL condition that they satisfy."""

    first: date
    condition: str


def draw_earlier_rows(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, training_date: date, snapshot: int
) -> DrawnRows | None:
    """Draw the rows from before the window that are trained on too, in the lake as of `snapshot`; None where there are none.

    A row is drawn where the hash of its key lies below a share, so that the same rows are drawn again, and most of them by later trainings.
    It is another hash than the one by which rows of a dataset are sampled: a sample would have all of them.
    """
    wanted, spine = earlier_rows(inputs.solution), inputs.solution.spine
    if not wanted or not spine.has_time:
        return None
    moment, cutoff = quote(spine.prediction_time), sql_moment(inputs.midnight(training_date))
    start = sql_moment(inputs.midnight(subtract_duration(training_date, inputs.solution.training.window)))
    known = f"{moment} < {start} AND {inputs.is_labelled} AND {quote(spine.label_time)} < {cutoff}"
    [(first, rows)] = connection.execute(
        f"SELECT CAST(min({quote(inputs.solution.partitions.column)}) AS DATE), count(*) "
        f"FROM {lake_name(inputs.spine.table)} AT (VERSION => {snapshot}) WHERE {known}"
    ).fetchall()
    if not rows:
        return None
    largest = _LARGEST_HASH * min(wanted, rows) // rows
    return DrawnRows(first, f"{known} AND hash(concat('earlier', {quote(spine.key)})) <= {largest}::UBIGINT")


def training_frame(inputs: SolutionInputs, training_date: date, snapshot: int, drawn: DrawnRows | None = None) -> Frame:
    """The labelled rows of the training window, and those `drawn` from before it, with their features."""
    has_time = inputs.solution.spine.has_time
    start = subtract_duration(training_date, inputs.solution.training.window) if has_time else training_date
    # Partitions are dates of the data's own zone: a day of slack, then the exact moments.
    first, rows = date.fromordinal(start.toordinal() - 1), labelled_rows(inputs, training_date)
    if drawn is not None:
        first, rows = min(first, drawn.first), f"({rows} OR {drawn.condition})"
    return inputs.frame(
        first=first,
        end=date.fromordinal(training_date.toordinal() + 1),
        condition=rows,
        labelled=True,
        snapshot=snapshot,
    )


def split_query(inputs: SolutionInputs, training_date: date, frame: str) -> str:
    """SQL for the rows of the query `frame` with training date and split, without those that no split takes."""
    training, spine = inputs.solution.training, inputs.solution.spine
    split = f"CASE WHEN {HELD_OUT} THEN 'holdout' ELSE 'train' END"
    if spine.has_time:
        split = SPLIT_SQL.format(
            prediction_time=quote(spine.prediction_time),
            label_time=quote(spine.label_time),
            window_start=sql_moment(inputs.midnight(subtract_duration(training_date, training.window))),
            holdout_start=sql_moment(inputs.midnight(subtract_duration(training_date, training.holdout))),
            cutoff=sql_moment(inputs.midnight(training_date)),
        )
    return (
        f"SELECT DATE '{training_date}' AS {TRAINING_DATE}, {_SPLIT} AS {SPLIT}, * EXCLUDE ({_SPLIT}) "
        f"FROM (SELECT {split} AS {_SPLIT}, * FROM ({frame})) WHERE {_SPLIT} <> 'excluded'"
    )
