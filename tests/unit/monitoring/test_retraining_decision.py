"""What a retraining decision is made from: reports and labels in a lake of its own, written as the platform's tables are."""

import functools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bundles import contract
from decisions import (
    FORGED,
    INPUTS,
    WINDOWS,
    Served,
    empty_lake,
    no_reference,
    report,
    report_no_drift,
)
from decisions import (
    decide as decide_about,
)
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.ml.decision_history import EarlierDecision
from mlops_assets.ml.performance import to_arrow
from mlops_assets.ml.reference import Reference
from mlops_assets.ml.reference_windows import NO_VARIATION
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.ml.usual_drift import NOTHING_USUAL
from mlops_assets.monitoring.decision_table import decision_identity
from mlops_assets.monitoring.monitored_windows import MonitoredVersion
from mlops_assets.monitoring.window_performance import is_complete, performance_with_labels
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.training.monitoring_reference import VersionReference

decide = functools.partial(decide_about, load=no_reference)


@pytest.fixture
def lake() -> duckdb.DuckDBPyConnection:
    """A visit an hour from February on, its label known a day later, and good reports of version 1."""
    connection = empty_lake()
    connection.execute(
        "CREATE TABLE lake.clinic.visits AS SELECT id, CAST(asked_at AS DATE) AS day, asked_at, id % 3 = 0 AS late, "
        "asked_at + INTERVAL 1 DAY AS known_at "
        "FROM (SELECT range AS id, TIMESTAMPTZ '2020-02-01' + to_hours(range) AS asked_at FROM range(1300))"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.outcomes AS SELECT id, id AS prediction_id, day, asked_at, late, known_at, true AS matured, "
        "1 AS model_version, 0.3 + 0.4 * (id % 3 = 0)::INTEGER AS score FROM lake.clinic.visits"
    )
    for window in WINDOWS:
        report(connection, window, version=1, alert=False)
    return connection


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FORGED.clear()


def test_good_windows_keep_the_model(lake: duckdb.DuckDBPyConnection) -> None:
    row = decide(lake, WINDOWS[-1])
    assert (row["outcome"], row["bad_windows"], row["realised"], row["model_version"]) == ("keep", 0, 0.8, 1)
    assert (row["decided_for"], row["trained_for"], row["attempted"]) == (date(2020, 3, 23), date(2020, 3, 1), date(2020, 3, 1))
    # 24 labels a day from the first of March until the decision; 168 visits in the week.
    assert (row["new_rows"], row["predictions"]) == (22 * 24, 168)


def test_two_bad_windows_train_for_the_day_after_the_window(lake: duckdb.DuckDBPyConnection) -> None:
    report(lake, WINDOWS[1], version=1, alert=True, made_on=date(2020, 3, 16))
    assert decide(lake, WINDOWS[1])["outcome"] == "keep"
    for window in WINDOWS[1:]:
        report(lake, window, version=1, alert=True)
    row = decide(lake, WINDOWS[2])
    assert (row["outcome"], row["bad_windows"], row["decided_for"]) == ("retrain", 2, date(2020, 3, 23))
    assert "2020-03-09: ranking worse (realised roc_auc 0.6, hold-out 0.8, limit 0.75)" in row["reason"]


def test_a_window_is_bad_by_any_metric_and_the_reason_tells_which(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS[1:]:
        lake.execute(
            "INSERT INTO lake.clinic.performance_report BY NAME SELECT * REPLACE ("
            "'expected_calibration_error' AS metric, 0.11 AS realised, NULL AS estimated, "
            "0.02 AS reference, 0.06 AS threshold, true AS alert) FROM lake.clinic.performance_report WHERE window_start = ?",
            [window],
        )
    row = decide(lake, WINDOWS[2])
    assert (row["outcome"], row["bad_windows"], row["realised"]) == ("retrain", 2, 0.8)
    assert (
        "2020-03-09: calibration worse (realised expected_calibration_error 0.11, hold-out 0.02, limit 0.06); "
        "ranking as usual (realised roc_auc 0.8, hold-out 0.8)"
    ) in row["reason"]


def test_slices_and_segments_do_not_decide(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS:
        report(lake, window, version=1, alert=True, part="ward = A")
        report(lake, window, version=7, alert=True)
    row = decide(lake, WINDOWS[-1])
    assert (row["outcome"], row["model_version"], row["bad_windows"]) == ("keep", 1, 0)


def test_windows_of_a_former_version_do_not_count(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS[:2]:
        report(lake, window, version=1, alert=True)
    report(lake, WINDOWS[2], version=2, alert=True)
    lake.execute("UPDATE lake.clinic.outcomes SET model_version = 2 WHERE day >= ?", [WINDOWS[2]])
    row = decide(lake, WINDOWS[2])
    assert (row["outcome"], row["model_version"], row["bad_windows"]) == ("keep", 2, 1)


def test_a_decision_made_again_later_is_the_same(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS[:2]:
        report(lake, window, version=1, alert=True, made_on=date(2020, 3, 16))
    before = decide(lake, WINDOWS[1])
    assert before["outcome"] == "retrain"
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-16', 2)")
    report(lake, WINDOWS[2], version=2, alert=True)
    assert decide(lake, WINDOWS[1]) == before


def test_a_decision_on_corrected_labels_is_the_same_decision(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS[:2]:
        report(lake, window, version=1, alert=True, made_on=date(2020, 3, 16))
    before = decide(lake, WINDOWS[1])
    assert before["outcome"] == "retrain"
    # Its training was refused. Then a few labels are corrected, and the window is decided anew.
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-16', 2)")
    lake.execute(
        "UPDATE lake.clinic.visits SET late = NOT late, known_at = TIMESTAMPTZ '2020-03-15' WHERE id % 100 = 0 AND id < 1000"
    )
    again = decide(lake, WINDOWS[1])
    assert again["rows_fingerprint"] != before["rows_fingerprint"]
    assert decision_identity(again) == decision_identity(before)
    # Nor do they jump the cooldown of the next window.
    for window in WINDOWS:
        report(lake, window, version=1, alert=True)
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-18', 3)")
    assert decide(lake, WINDOWS[2])["outcome"] == "wait"
    other = [before | {"outcome": "keep"}, before | {"model_version": 2}, before | {"decided_for": date(2020, 3, 23)}]
    assert len({decision_identity(row) for row in [before, *other]}) == 4


def test_a_recent_training_is_an_obstacle_whatever_came_of_it(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS:
        report(lake, window, version=1, alert=True)
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-18', 2)")
    row = decide(lake, WINDOWS[2])
    assert row["outcome"] == "wait"
    assert "the last training was for 2020-03-18, within the cooldown" in row["reason"]


@pytest.mark.parametrize(("tag", "value"), [("training_date", "2020-03-22"), ("segment", "north")])
def test_a_tag_that_somebody_wrote_decides_nothing(lake: duckdb.DuckDBPyConnection, tag: str, value: str) -> None:
    FORGED[tag] = value
    with pytest.raises(EvidenceError, match=r"was changed in MLflow after it was registered.* mlops train clinic --date"):
        decide(lake, WINDOWS[-1])


RECALIBRATING = INPUTS.solution.retraining.model_copy(update={"recalibrate": True})
REFERENCE_SCORES = pa.table({"score": [0.2, 0.3, 0.5, 0.6, 0.4, 0.7] * 50, "late": [0, 0, 0, 1, 1, 1] * 50})


@functools.cache
def reference(version: int) -> MonitoredVersion:
    described = contract(problem="binary_classification", classes=[0, 1], decision_threshold=0.5)
    return MonitoredVersion(
        version, described, VersionReference(cast("Reference", None), 5, REFERENCE_SCORES, NO_VARIATION, NOTHING_USUAL, {}, {})
    )


def lake_at(clock: datetime, delays: np.ndarray) -> duckdb.DuckDBPyConnection:
    """The lake as it was at `clock`, with the reports that were made then: the label of a visit becomes known after its delay in hours."""
    connection = empty_lake()
    random = np.random.default_rng(0)
    asked = [datetime(2020, 2, 24, tzinfo=UTC) + timedelta(hours=number) for number in range(len(delays))]
    known = [moment + timedelta(hours=int(delay)) for moment, delay in zip(asked, delays, strict=True)]
    late = random.random(len(delays)) < 0.4
    # In the second half of the rows the model is no longer right.
    signal = np.where(np.arange(len(delays)) < len(delays) // 2, late, random.random(len(delays)) < 0.4)
    rows = pa.table(
        {
            "id": range(len(delays)),
            "day": [moment.date() for moment in asked],
            "asked_at": asked,
            "late": [bool(label) if moment <= clock else None for label, moment in zip(late, known, strict=True)],
            "known_at": [moment if moment <= clock else None for moment in known],
            "age": random.random(len(delays)),
            "score": np.clip(0.2 + 0.4 * signal + random.normal(0, 0.2, len(delays)), 0, 1),
        }
    ).filter(pc.field("asked_at") < clock)
    connection.register("rows", rows)
    connection.execute("CREATE TABLE lake.clinic.visits AS SELECT id, day, asked_at, late, known_at FROM rows")
    connection.execute(
        "CREATE TABLE lake.clinic.outcomes AS SELECT id, id AS prediction_id, day, asked_at, late, known_at, late IS NOT NULL AS matured, "
        "1 AS model_version, score FROM rows"
    )
    connection.execute("CREATE TABLE lake.clinic.predictions AS SELECT id AS prediction_id, day, age FROM rows")
    for window in WINDOWS:
        end = datetime.fromisoformat(window).replace(tzinfo=UTC) + timedelta(days=7)
        if end <= clock:
            estimated = PerformanceRow(
                **dict.fromkeys(row_columns(PerformanceRow))
                | {
                    "window": window,
                    "metric": "roc_auc",
                    "rows": 168,
                    "estimated": 0.6,
                    "estimated_lower": 0.5,
                    "estimated_upper": 0.65,
                }
            )
            of_window = f"day >= DATE '{window}' AND day < DATE '{end.date()}'"
            labelled = connection.execute(f"FROM lake.clinic.outcomes WHERE matured AND {of_window} ORDER BY id").to_arrow_table()
            complete = is_complete(INPUTS, end.date(), clock)
            report_rows = performance_with_labels(INPUTS, reference(1), [estimated], labelled, complete=complete)
            connection.register("report_rows", to_arrow(report_rows))
            connection.execute(
                'INSERT INTO lake.clinic.performance_report BY NAME SELECT * EXCLUDE ("window"), CAST("window" AS DATE) AS window_start, '
                "1 AS model_version "
                "FROM report_rows"
            )
            report_no_drift(connection, window, version=1, part=None)
    return connection


@settings(max_examples=examples(8), deadline=None)
@given(
    seed=st.integers(0, 2**20),
    longest=st.integers(1, 30 * 24),
    window=st.sampled_from(WINDOWS),
    later=st.integers(0, 60 * 24),
)
def test_a_decision_in_retrospect_is_that_of_its_day_however_late_labels_come(
    seed: int, longest: int, window: str, later: int
) -> None:
    delays = np.random.default_rng(seed).integers(0, longest, 24 * 28)
    day = datetime.fromisoformat(window).replace(tzinfo=UTC) + timedelta(days=7)
    clinic = replace(INPUTS, solution=INPUTS.solution.model_copy(update={"retraining": RECALIBRATING}))
    on_the_day, in_retrospect = (
        decide(lake_at(clock, delays), window, load=reference, served=Served(version_1=5), clinic=clinic)
        for clock in (day, day + timedelta(hours=later))
    )
    assert in_retrospect == on_the_day
    if longest < 24 and window == WINDOWS[2]:
        assert on_the_day["rollback_rows"] > 168
        assert on_the_day["recalibration_rows"] > 100


def test_after_two_refused_trainings_a_person_is_asked(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS:
        report(lake, window, version=1, alert=True)
    earlier = [
        EarlierDecision(
            window=date.fromisoformat(window),
            day=date.fromisoformat(window) + timedelta(days=7),
            version=1,
            trained_for=date(2020, 3, 1),
            previous=None,
            outcome="retrain",
        )
        for window in WINDOWS[:2]
    ]
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-09', 2)")
    assert decide(lake, WINDOWS[2], earlier=earlier)["outcome"] == "retrain"
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-16', 3)")
    row = decide(lake, WINDOWS[2], earlier=earlier)
    assert row["outcome"] == "ask"
    assert "the last 2 trainings, the newest for 2020-03-16, were refused or rolled back" in row["reason"]
    # A person trained on another day.
    lake.execute("INSERT INTO lake.clinic.evaluation VALUES (DATE '2020-03-14', 4)")
    assert decide(lake, WINDOWS[2], earlier=earlier[:1])["outcome"] == "retrain"


def test_after_a_rollback_within_a_window_the_version_that_came_back_is_decided_about(lake: duckdb.DuckDBPyConnection) -> None:
    report(lake, WINDOWS[2], version=2, alert=True)
    lake.execute("UPDATE lake.clinic.outcomes SET model_version = 2 WHERE day BETWEEN DATE '2020-03-16' AND DATE '2020-03-18'")
    assert decide(lake, WINDOWS[2], load=reference)["model_version"] == 1
