"""What a retraining decision is made from: reports and labels in a lake of its own, written as the platform's tables are."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bundles import record_of
from msgspec.structs import replace

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.monitoring.retraining_decision import decide_window
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

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
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; CREATE SCHEMA lake.clinic")
    connection.execute(
        "CREATE TABLE lake.clinic.visits AS SELECT id, CAST(asked_at AS DATE) AS day, asked_at, id % 3 = 0 AS late, "
        "asked_at + INTERVAL 1 DAY AS known_at "
        "FROM (SELECT range AS id, TIMESTAMPTZ '2020-02-01' + to_hours(range) AS asked_at FROM range(1300))"
    )
    connection.execute("CREATE TABLE lake.clinic.evaluation AS SELECT DATE '2020-03-01' AS training_date, 1 AS model_version")
    connection.execute(
        "CREATE TABLE lake.clinic.drift_report (window_start DATE, model_version INTEGER, slice VARCHAR, feature VARCHAR, "
        "kind VARCHAR, alert BOOLEAN)"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.performance_report (window_start DATE, model_version INTEGER, slice VARCHAR, metric VARCHAR, "
        "estimated DOUBLE, realised DOUBLE, threshold DOUBLE, alert BOOLEAN, complete BOOLEAN, rows BIGINT)"
    )
    # The commits of a DuckLake; without any, the last training counts as made with other rows.
    connection.execute(
        "CREATE MACRO lake.snapshots() AS TABLE SELECT 0 AS snapshot_id, now() AS snapshot_time, '' AS author, '' AS commit_extra_info"
    )
    for window in WINDOWS:
        report(connection, window, version=1, alert=False)
    return connection


def report(connection: duckdb.DuckDBPyConnection, window: str, *, version: int, alert: bool, part: str | None = None) -> None:
    connection.execute(
        "DELETE FROM lake.clinic.performance_report WHERE window_start = ? AND model_version = ? AND slice IS NOT DISTINCT FROM ?",
        [window, version, part],
    )
    values = [window, version, part, 0.7, 0.6 if alert else 0.8, 0.75, alert]
    connection.execute("INSERT INTO lake.clinic.performance_report VALUES (?, ?, ?, 'roc_auc', ?, ?, ?, ?, true, 168)", values)
    connection.execute("INSERT INTO lake.clinic.drift_report VALUES (?, ?, ?, 'age', 'feature', false)", [window, version, part])


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FORGED.clear()


def decide(connection: duckdb.DuckDBPyConnection, window: str) -> dict[str, Any]:
    signer = Signer(Path("signing_key"))
    return decide_window(connection, Versions("", "", signer), INPUTS, window=date.fromisoformat(window), running=None)


def test_good_windows_keep_the_model(lake: duckdb.DuckDBPyConnection) -> None:
    row = decide(lake, WINDOWS[-1])
    assert (row["outcome"], row["bad_windows"], row["realised"], row["model_version"]) == ("keep", 0, 0.8, 1)
    assert (row["decided_for"], row["trained_for"], row["attempted"]) == (date(2020, 3, 23), date(2020, 3, 1), date(2020, 3, 1))
    # 24 labels a day from the first of March until the decision; 168 visits in the week.
    assert (row["new_rows"], row["predictions"]) == (22 * 24, 168)


def test_two_bad_windows_train_for_the_day_after_the_window(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS[1:]:
        report(lake, window, version=1, alert=True)
    assert decide(lake, WINDOWS[1])["outcome"] == "keep"
    row = decide(lake, WINDOWS[2])
    assert (row["outcome"], row["bad_windows"], row["decided_for"]) == ("retrain", 2, date(2020, 3, 23))
    assert "2020-03-16: realised roc_auc 0.600, limit 0.750" in row["reason"]


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
    row = decide(lake, WINDOWS[2])
    assert (row["outcome"], row["model_version"], row["bad_windows"]) == ("keep", 2, 1)


def test_a_decision_made_again_later_is_the_same(lake: duckdb.DuckDBPyConnection) -> None:
    for window in WINDOWS[:2]:
        report(lake, window, version=1, alert=True)
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
