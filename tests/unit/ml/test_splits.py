from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.splits import SPLIT_SQL, temporal_split

START, END = datetime(2013, 6, 1), datetime(2013, 7, 1)


def _day(month: int, day: int) -> datetime:
    return datetime(2013, month, day)


def test_the_embargo_keeps_labels_that_arrived_later_out_of_training() -> None:
    rows = [
        (_day(5, 1), _day(5, 2), "train"),
        (_day(5, 31), _day(6, 1), "excluded"),  # the label arrived at the very start of the hold-out
        (_day(6, 1), _day(6, 2), "holdout"),
        (_day(6, 30), _day(7, 1), "excluded"),  # not matured before the cutoff
        (_day(7, 1), _day(7, 2), "excluded"),
        (_day(5, 1), None, "excluded"),
    ]
    predicted, labelled, expected = zip(*rows, strict=True)
    assert temporal_split(pa.array(predicted), pa.array(labelled), START, END).to_pylist() == list(expected)


MOMENTS = st.one_of(st.none(), st.datetimes(_day(5, 20), _day(7, 10)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=30))
def test_the_sql_is_the_same_rule(rows: list[tuple]) -> None:
    times = pa.table(
        {
            "predicted": pa.array([row[0] for row in rows], pa.timestamp("us")),
            "labelled": pa.array([row[1] for row in rows], pa.timestamp("us")),
        }
    )
    expression = SPLIT_SQL.format(
        prediction_time="predicted", label_time="labelled", holdout_start=f"timestamp '{START}'", cutoff=f"timestamp '{END}'"
    )
    with duckdb.connect() as connection:
        in_sql = connection.sql(f"select {expression} as split from times").fetchall()
    in_arrow = temporal_split(times["predicted"], times["labelled"], START, END)
    assert [row[0] for row in in_sql] == in_arrow.to_pylist()


def test_time_zones_must_agree() -> None:
    aware = pa.array([datetime(2013, 5, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))
    result = temporal_split(aware, aware, START.replace(tzinfo=UTC), END.replace(tzinfo=UTC))
    assert result.to_pylist() == ["train"]
    with pytest.raises(ValueError, match="give both a time zone, or none"):
        temporal_split(aware, aware, START, END)


def test_wrong_arguments_are_named() -> None:
    times = pa.array([_day(5, 1)])
    with pytest.raises(ValueError, match="not before its end"):
        temporal_split(times, times, END, START)
    with pytest.raises(ValueError, match="label_time has type int64"):
        temporal_split(times, pa.array([1]), START, END)
    with pytest.raises(ValueError, match="1 prediction times but 0 label times"):
        temporal_split(times, times[:0], START, END)
