"""Weeks that share their weather, summarised and measured as an evaluation and a drift report do."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.drift import evaluate_distances
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.reference import WHOLE, MonitoredColumn, Reference, summarise
from mlops_assets.ml.report_rows import ALL_FEATURES, RECONSTRUCTION_ERROR, DriftRow
from mlops_assets.ml.usual_drift import NOTHING_USUAL, UsualDrift, usual_drift
from mlops_assets.training.drift_distances import measure_distances
from mlops_assets.training.reference_period import REFERENCE_WINDOW
from mlops_assets.training.window_distances import measure_windows, wasserstein_distances

WEEKS, ROWS = 26, 600
MONITORED = [
    MonitoredColumn("weather", "feature", True),
    MonitoredColumn("gusts", "feature", True),
    MonitoredColumn("calm", "feature", True),
    MonitoredColumn("carrier", "feature", False),
    MonitoredColumn("score", "prediction", True),
]
FEATURES = FeatureSchema(numeric=("weather", "gusts", "calm"), categorical=("carrier",))


def weeks(seed: int, count: int, *, rows: int = ROWS, calm: float = 0.0, weather: float = 0.0) -> pa.Table:
    """Rows of `count` weeks, each with a weather that all its rows share; `calm` and `weather` shift a feature."""
    random = np.random.default_rng(seed)
    week = np.repeat(np.arange(count), rows)
    shared, carriers = random.normal(0, 0.5, count)[week], random.uniform(0.2, 0.6, count)[week]
    values = shared + random.normal(weather, 1, count * rows)
    return pa.table(
        {
            REFERENCE_WINDOW: np.char.mod("%02d", week),
            "origin": np.where(random.random(count * rows) < 0.5, "EWR", "JFK"),
            "weather": values,
            "gusts": np.exp(shared + random.normal(0, 1, count * rows)),
            "calm": random.normal(calm, 1, count * rows),
            "carrier": np.where(random.random(count * rows) < carriers, "UA", "B6"),
            "score": 1 / (1 + np.exp(-values)),
        }
    )


PERIOD = weeks(0, WEEKS)


@pytest.fixture(scope="module")
def whole() -> Reference:
    return summarise(PERIOD, MONITORED, ("origin",))


@pytest.fixture(scope="module")
def usual(whole: Reference) -> UsualDrift:
    holdout = PERIOD.slice((WEEKS - 2) * ROWS)
    return usual_drift(measure_windows(duckdb.connect(), PERIOD, whole, holdout, FEATURES, held_out=2.0))


def alerts(rows: pa.Table, whole: Reference, usual: UsualDrift) -> list[DriftRow]:
    connection = duckdb.connect()
    connection.register("rows", rows)
    distances = measure_distances(connection, rows="rows", window=REFERENCE_WINDOW, slices=("origin",), reference=whole)
    evaluated = evaluate_distances(distances, whole, effect_floor=0.1, false_alarms=0.05, usual=usual)
    return [row for row in evaluated if row.alert]


def test_weeks_that_differ_as_ever_do_not_alert_and_a_shift_does(whole: Reference, usual: UsualDrift) -> None:
    ordinary = weeks(1, 20)
    as_independent_rows = alerts(ordinary, whole, NOTHING_USUAL)
    assert len({row.window for row in as_independent_rows}) > 15
    assert {row.feature for row in as_independent_rows} == {"weather", "gusts", "carrier", "score"}
    assert alerts(ordinary, whole, usual) == []
    # A feature that is the same in every week keeps its tight threshold, also on the half of the rows that a slice has.
    [shifted] = {row.feature for row in alerts(weeks(2, 1, calm=0.6), whole, usual)}
    assert shifted == "calm"
    assert {row.slice for row in alerts(weeks(2, 1, calm=0.6), whole, usual)} == {None, "origin = EWR", "origin = JFK"}
    # What moves anyway has to move farther than it ever did.
    moved = [row for row in alerts(weeks(2, 1, weather=3.5), whole, usual) if row.feature == "weather" and row.slice is None]
    assert {row.method for row in moved} == {"jensen_shannon", "wasserstein", "population_stability_index"}
    assert {(row.farther, row.windows) for row in moved} == {(0, WEEKS)}


def test_the_sampling_error_of_a_window_is_not_usual_drift(whole: Reference, usual: UsualDrift) -> None:
    """Samples of 150 and of 600 rows tell the same of weeks, and little of a feature that is the same in all of them."""
    small = pa.concat_tables([PERIOD.slice(week * ROWS, 150) for week in range(WEEKS)])
    summary = summarise(small, MONITORED, ())
    measured = measure_windows(duckdb.connect(), small, summary, small.slice(24 * 150), FEATURES, held_out=2.0)
    of_small = usual_drift(measured)
    for method in ("jensen_shannon", "wasserstein", "population_stability_index"):
        by_rows = [known.effects["weather", method] for known in (of_small, usual)]
        assert np.mean(by_rows[0]) == pytest.approx(np.mean(by_rows[1]), rel=0.2), method
        for known in (of_small, usual):
            assert np.mean(known.effects["calm", method] ** 2) < 0.2 * np.mean(known.effects["weather", method] ** 2), method


def test_the_features_together_are_compared_with_the_windows_too(usual: UsualDrift) -> None:
    cell = (ALL_FEATURES, RECONSTRUCTION_ERROR)
    assert usual.windows(cell) == WEEKS
    assert 0 < usual.effects[cell].min() <= usual.effects[cell].max() < 0.5


def test_the_wasserstein_distance_is_that_of_a_report(whole: Reference) -> None:
    connection = duckdb.connect()
    # From 10,000 rows on the reference has bins, whose middle stands for their values.
    for period, within in ((PERIOD, 1e-3), (PERIOD.slice(0, 9_000), 1e-9)):
        summary = summarise(period, MONITORED, ())
        described = {column["feature"]: column for column in summary.columns.to_pylist() if column["slice"] == WHOLE}
        sample = period.slice(0, ROWS)
        connection.register("sample", sample)
        reported = {
            distance.feature: distance
            for distance in measure_distances(connection, rows="sample", window=REFERENCE_WINDOW, slices=(), reference=summary)
            if distance.method == "wasserstein"
        }
        measured = list(wasserstein_distances({"00": sample}, described, summary))
        assert {distance.feature for distance in measured} == set(reported) == {"weather", "gusts", "calm", "score"}
        for distance in measured:
            expected = reported[distance.feature]
            deviation = described[distance.feature]["standard_deviation"]
            assert distance.value == pytest.approx(expected.value, abs=within * deviation), distance
            assert (distance.window, distance.rows, distance.bins) == (expected.window, expected.rows, expected.bins)
