"""Windows of the period that a version was trained and evaluated on, for each problem through a real bundle."""

from datetime import date, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from evaluated_candidates import Candidate

from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.ml.reference import WHOLE
from mlops_assets.ml.reference_windows import METRIC_SCHEMA
from mlops_assets.training.reference_period import REFERENCE_WINDOW, measure_period, scored_windows


def lake_with(candidate: Candidate, rows: pa.Table, training_date: date) -> duckdb.DuckDBPyConnection:
    """A lake whose training dataset holds `rows`."""
    connection, inputs = duckdb.connect(), candidate.case.inputs
    connection.execute(f"ATTACH ':memory:' AS lake; CREATE SCHEMA lake.{inputs.name}")
    connection.register("rows", rows)
    lacking = [name for name in inputs.spine_columns(labelled=True) if name not in rows.column_names]
    columns = ["*", f"DATE '{training_date}' AS training_date", "'train' AS split", *(f"NULL AS {name}" for name in lacking)]
    connection.execute(f"CREATE TABLE lake.{inputs.table(TRAINING_DATASET)} AS SELECT {', '.join(columns)} FROM rows")
    return connection


def test_every_whole_window_is_scored_and_measured(candidate: Candidate) -> None:
    rows, inputs = candidate.case.train, candidate.case.inputs
    days = sorted(rows.column("flight_date").unique().to_pylist())
    connection = lake_with(candidate, rows, days[-1] + timedelta(days=1))
    scored = scored_windows(connection, inputs, candidate.bundle, days[-1] + timedelta(days=1))
    assert scored is not None
    windows = scored.column(REFERENCE_WINDOW).unique().to_pylist()
    # The weeks that begin after the first day and end before the last.
    mondays = [day for day in days if day.weekday() == 0 and day + timedelta(days=6) <= days[-1]]
    assert windows == [day.isoformat() for day in mondays]
    inside = rows.filter(
        pc.and_(
            pc.greater_equal(rows.column("flight_date"), mondays[0]),
            pc.less(rows.column("flight_date"), mondays[-1] + timedelta(days=7)),
        )
    )
    assert scored.num_rows == inside.num_rows
    period = measure_period(connection, inputs, candidate.bundle, days[-1] + timedelta(days=1))
    assert period is not None
    assert period.rows == scored
    sample = period.sample(10 * len(windows) + 3)
    # Equally many rows of each window, always the same.
    assert sample.column(REFERENCE_WINDOW).to_pylist() == [window for window in windows for _ in range(10)]
    first = scored.filter(pc.equal(scored.column(REFERENCE_WINDOW), windows[1])).slice(0, 10)
    assert sample.slice(10, 10).combine_chunks() == first.combine_chunks()
    metrics = period.metrics
    assert metrics.schema == METRIC_SCHEMA
    whole = metrics.filter(pc.equal(metrics.column("slice"), WHOLE))
    assert set(whole.column("metric").to_pylist()) <= set(inputs.solution.metrics)
    metric = whole.filter(pc.equal(whole.column("metric"), inputs.solution.training.metric))
    assert metric.column("window").to_pylist() == windows
    assert min(metric.column("error").to_pylist()) > 0


def test_a_period_of_few_windows_tells_nothing(candidate: Candidate) -> None:
    rows = candidate.case.train.slice(0, 24 * 20)
    assert (
        measure_period(lake_with(candidate, rows, date(2013, 1, 21)), candidate.case.inputs, candidate.bundle, date(2013, 1, 21))
        is None
    )
