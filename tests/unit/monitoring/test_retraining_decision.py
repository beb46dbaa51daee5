"""What a retraining decision is made from: reports and labels in a lake of its own, written as the platform's tables are."""

import functools
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bundles import contract, record_of
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.ml.performance import to_arrow
from mlops_assets.ml.reference import Reference
from mlops_assets.ml.reference_windows import NO_VARIATION
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.ml.usual_drift import NOTHING_USUAL
from mlops_assets.monitoring.known_performance import LoadVersion
from mlops_assets.monitoring.monitored_windows import MonitoredVersion, report_columns
from mlops_assets.monitoring.performance_report import is_complete, performance_with_labels
from mlops_assets.monitoring.retraining_decision import decide_window
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.monitoring_reference import VersionReference

WINDOWS = ["2020-03-02", "2020-03-09", "2020-03-16"]
"""Mondays; the last one's decision is made on 2020-03-23."""


class Versions(ModelRegistry):
    """Version 1, trained for the first of March, and version 7 of a segment, both signed; the real registry needs a server."""

    def get(self, solution: str, version: int) -> RegisteredModel:
        record = record_of(solution, version)
        record = replace(record, training=replace(record.training, segment="north" if version == 7 else None))
        tags = record.training.tags | {"bundle_record": record.text} | record.sign(self.signer, "registered")
        return RegisteredModel(solution, version, record.run_id, tags | FORGED)


FORGED: dict[str, str] = {}
"""Tags of every version that somebody wrote in MLflow."""


def inputs() -> SolutionInputs:
    solution = Solution.model_validate(
        {
            "name": "clinic",
            "description": "",
            "owners": ["team:clinic"],
            "problem": "binary_classification",
            "partitions": {"column": "day", "start": "2020-01-01", "end": "2020-04-01"},
            "spine": {"model": "visits", "key": "id", "prediction_time": "asked_at", "label": "late", "label_time": "known_at"},
            "features": [{"request": ["age"]}],
            "training": {"window": "30d", "holdout": "5d", "metric": "roc_auc", "estimator": {"type": "x.Y"}},
            "retraining": {"bad_windows": "2 of 3", "minimum_new_rows": 10},
        }
    )
    spine = DbtModel(
        name="visits", table="clinic.visits", description="", columns={}, column_descriptions={}, partition_column="day"
    )
    return SolutionInputs(solution=solution, spine=spine, views=(), request=("age",), derived={})


INPUTS = inputs()


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


def empty_lake() -> duckdb.DuckDBPyConnection:
    """Nobody drifted, version 1 was evaluated, and nothing else is known."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; CREATE SCHEMA lake.clinic")
    connection.execute("CREATE TABLE lake.clinic.evaluation AS SELECT DATE '2020-03-01' AS training_date, 1 AS model_version")
    connection.execute(
        "CREATE TABLE lake.clinic.drift_report (window_start DATE, model_version INTEGER, slice VARCHAR, feature VARCHAR, "
        "kind VARCHAR, alert BOOLEAN)"
    )
    columns = report_columns(row_columns(PerformanceRow))
    typed = ", ".join(f"{name} {column.type}" for name, column in columns.items())
    connection.execute(f"CREATE TABLE lake.clinic.performance_report ({typed})")
    # The commits of a DuckLake; without any, the last training counts as made with other rows.
    connection.execute(
        "CREATE MACRO lake.snapshots() AS TABLE SELECT 0 AS snapshot_id, now() AS snapshot_time, '' AS author, '' AS commit_extra_info"
    )
    return connection


def report(
    connection: duckdb.DuckDBPyConnection,
    window: str,
    *,
    version: int,
    alert: bool,
    part: str | None = None,
    made_on: date = date(2020, 3, 23),
) -> None:
    """Write the reports of a window as they were `made_on` a day. A label is known a day after its visit."""
    complete = made_on > date.fromisoformat(window) + timedelta(days=7)
    connection.execute(
        "DELETE FROM lake.clinic.performance_report WHERE window_start = ? AND model_version = ? AND slice IS NOT DISTINCT FROM ?",
        [window, version, part],
    )
    values = [window, version, part, 0.7, 0.6 if alert else 0.8, 0.75, alert, complete, 168 if complete else 145]
    connection.execute(
        "INSERT INTO lake.clinic.performance_report BY NAME "
        "SELECT * FROM (VALUES (CAST(? AS DATE), ?, ?, 'roc_auc', ?, ?, 0.8, ?, ?, ?, 168, ?)) "
        "t(window_start, model_version, slice, metric, estimated, realised, reference, threshold, alert, complete, rows, matured_rows)",
        values,
    )
    report_no_drift(connection, window, version=version, part=part)


def report_no_drift(connection: duckdb.DuckDBPyConnection, window: str, *, version: int, part: str | None) -> None:
    connection.execute("INSERT INTO lake.clinic.drift_report VALUES (?, ?, ?, 'age', 'feature', false)", [window, version, part])


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FORGED.clear()


def no_reference(version: int) -> MonitoredVersion:
    raise AssertionError(f"version {version}: its reports knew the labels of the day, and nothing is computed again")


def decide(connection: duckdb.DuckDBPyConnection, window: str, load: LoadVersion = no_reference) -> dict[str, Any]:
    signer = Signer(Path("signing_key"))
    return decide_window(connection, Versions("", "", signer), INPUTS, window=date.fromisoformat(window), running=None, load=load)


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


REFERENCE_SCORES = pa.table({"score": [0.2, 0.3, 0.5, 0.6, 0.4, 0.7] * 50, "late": [0, 0, 0, 1, 1, 1] * 50})


@functools.cache
def reference(version: int) -> MonitoredVersion:
    described = contract(problem="binary_classification", classes=[0, 1], decision_threshold=0.5)
    return MonitoredVersion(
        version, described, VersionReference(cast("Reference", None), 5, REFERENCE_SCORES, NO_VARIATION, NOTHING_USUAL, {})
    )


def lake_at(clock: datetime, delays: np.ndarray) -> duckdb.DuckDBPyConnection:
    """The lake as it was at `clock`, with the reports that were made then: the label of a visit becomes known after its delay in hours."""
    connection = empty_lake()
    random = np.random.default_rng(0)
    asked = [datetime(2020, 2, 24, tzinfo=UTC) + timedelta(hours=4 * number) for number in range(len(delays))]
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
            "score": np.clip(0.2 + 0.4 * signal + random.normal(0, 0.2, len(delays)), 0, 1),
        }
    ).filter(pc.field("asked_at") < clock)
    connection.register("rows", rows)
    connection.execute("CREATE TABLE lake.clinic.visits AS SELECT id, day, asked_at, late, known_at FROM rows")
    connection.execute(
        "CREATE TABLE lake.clinic.outcomes AS SELECT id, id AS prediction_id, day, asked_at, late, known_at, late IS NOT NULL AS matured, "
        "1 AS model_version, score FROM rows"
    )
    for window in WINDOWS:
        end = datetime.fromisoformat(window).replace(tzinfo=UTC) + timedelta(days=7)
        if end <= clock:
            estimated = PerformanceRow(
                **dict.fromkeys(row_columns(PerformanceRow))
                | {
                    "window": window,
                    "metric": "roc_auc",
                    "rows": 42,
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
    delays = np.random.default_rng(seed).integers(0, longest, 6 * 28)
    day = datetime.fromisoformat(window).replace(tzinfo=UTC) + timedelta(days=7)
    on_the_day, in_retrospect = (
        decide(lake_at(clock, delays), window, load=reference) for clock in (day, day + timedelta(hours=later))
    )
    assert in_retrospect == on_the_day
