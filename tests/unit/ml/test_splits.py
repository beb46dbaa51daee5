from datetime import datetime

import duckdb
import pyarrow as pa
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.splits import SPLIT_SQL

WINDOW, START, END = datetime(2013, 5, 25), datetime(2013, 6, 1), datetime(2013, 7, 1)


def _day(month: int, day: int) -> datetime:
    return datetime(2013, month, day)


def _splits(rows: list[tuple]) -> list[str]:
    """The split of each pair of prediction time and label time."""
    times = pa.table(
        {
            "predicted": pa.array([row[0] for row in rows], pa.timestamp("us")),
            "labelled": pa.array([row[1] for row in rows], pa.timestamp("us")),
        }
    )
    expression = SPLIT_SQL.format(
        prediction_time="predicted",
        label_time="labelled",
        window_start=f"timestamp '{WINDOW}'",
        holdout_start=f"timestamp '{START}'",
        cutoff=f"timestamp '{END}'",
    )
    with duckdb.connect() as connection:
        connection.register("times", times)
        return [split for (split,) in connection.sql(f"select {expression} from times").fetchall()]


def _expected(predicted: datetime | None, labelled: datetime | None) -> str:
    if predicted is None or labelled is None:
        return "excluded"
    if predicted < START:
        return ("earlier" if predicted < WINDOW else "train") if labelled < START else "excluded"
    return "holdout" if predicted < END and labelled < END else "excluded"


def test_the_embargo_keeps_labels_that_arrived_later_out_of_training() -> None:
    rows = [
        (_day(5, 24), _day(5, 28), "earlier"),
        (_day(5, 25), _day(5, 28), "train"),
        (_day(5, 31), _day(6, 1), "excluded"),  # the label arrived at the very start of the hold-out
        (_day(6, 1), _day(6, 2), "holdout"),
        (_day(6, 30), _day(7, 1), "excluded"),  # not matured before the cutoff
        (_day(7, 1), _day(7, 2), "excluded"),
        (_day(5, 1), None, "excluded"),
    ]
    assert _splits(rows) == [expected for *_, expected in rows]


MOMENTS = st.one_of(st.none(), st.sampled_from([WINDOW, START, END]), st.datetimes(_day(5, 20), _day(7, 10)))


@settings(max_examples=examples(40))
@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=30))
def test_every_row_is_in_the_split_that_the_rule_says(rows: list[tuple]) -> None:
    assert _splits(rows) == [_expected(*row) for row in rows]
