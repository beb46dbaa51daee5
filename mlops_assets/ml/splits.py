"""The rule that divides labelled rows by time into training and hold-out, once in Arrow and once as SQL."""

from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "holdout", "excluded"]

SPLIT_SQL = """case
  when {prediction_time} < {holdout_start} and {label_time} < {holdout_start} then 'train'
  when {prediction_time} >= {holdout_start} and {prediction_time} < {cutoff} and {label_time} < {cutoff} then 'holdout'
  else 'excluded'
end"""
"""The same rule as a SQL expression: fill in two column names and two timestamp literals or parameters with `str.format`."""


def temporal_split(
    prediction_time: "pa.ChunkedArray | pa.Array",
    label_time: "pa.ChunkedArray | pa.Array",
    holdout_start: datetime,
    cutoff: datetime,
) -> "pa.ChunkedArray | pa.Array":
    """The split of each row, "train", "holdout" or "excluded", as a string array.

    - train: predicted and *labelled* before `holdout_start`. A model trained at that moment could not have known a label
      that arrived later, so rows whose label is still open then are excluded (the embargo), not trained on.
    - holdout: predicted in [`holdout_start`, `cutoff`) and labelled before `cutoff`.
    - excluded: everything else, rows with a null time included.

    Both arrays are timestamps; the datetimes carry a time zone when the arrays do. Raises ValueError when the arrays are
    not timestamps of equal length, or `holdout_start` is not before `cutoff`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(prediction_time) != len(label_time):
        raise ValueError(f"{len(prediction_time)} prediction times but {len(label_time)} label times.")
    for name, times in (("prediction_time", prediction_time), ("label_time", label_time)):
        if not pa.types.is_timestamp(times.type):
            raise ValueError(f"{name} has type {times.type}: it must be a timestamp.")
        for moment in (holdout_start, cutoff):
            if (times.type.tz is None) != (moment.tzinfo is None):
                raise ValueError(
                    f"{name} has type {times.type} but the split is at {moment.isoformat()}: give both a time zone, or none."
                )
    if holdout_start >= cutoff:
        raise ValueError(f"The hold-out starts at {holdout_start.isoformat()}, which is not before its end {cutoff.isoformat()}.")
    before = pc.less(prediction_time, _scalar(holdout_start, prediction_time.type))
    known_before = pc.less(label_time, _scalar(holdout_start, label_time.type))
    within = pc.and_(pc.invert(before), pc.less(prediction_time, _scalar(cutoff, prediction_time.type)))
    known_within = pc.less(label_time, _scalar(cutoff, label_time.type))
    train = pc.fill_null(pc.and_(before, known_before), False)
    holdout = pc.fill_null(pc.and_(within, known_within), False)
    return pc.if_else(train, "train", pc.if_else(holdout, "holdout", "excluded"))


def _scalar(moment: datetime, kind: "pa.DataType") -> "pa.Scalar":
    import pyarrow as pa

    return pa.scalar(moment, pa.timestamp("us", tz=kind.tz)).cast(kind)
