"""Probes of the weeks of a clinic: where the relation changed newer history helps and a training is due, elsewhere a candidate must gain."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from decisions import INPUTS, Served, decide, empty_lake, no_reference, report, true_scores

from mlops_assets.monitoring.decision_table import earlier_decision

FIRST = date(2020, 3, 2)
SOLUTION = INPUTS.solution
LOGISTIC = SOLUTION.training.estimator.model_copy(update={"type": "sklearn.linear_model.LogisticRegression"})
CLINIC = replace(
    INPUTS,
    solution=SOLUTION.model_copy(update={"training": SOLUTION.training.model_copy(update={"estimator": LOGISTIC})}),
)


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lake_of(*, changes: bool, weeks: int = 6) -> duckdb.DuckDBPyConnection:
    """A visit an hour, each label known a day later: a month that version 1 was trained on, and weeks that it predicted.

    In these the young are late instead of the old, if the relation `changes`.
    """
    random, before = np.random.default_rng(0), 30 * 24
    count = before + weeks * 168
    age = random.random(count)
    probability = true_scores(age)
    happens = np.where(np.arange(count) < before, probability, 1 - probability) if changes else probability
    rows = pa.table({"id": range(count), "age": age, "score": probability, "late": random.random(count) < happens})
    connection = empty_lake()
    connection.register("rows", rows)
    connection.execute(
        "CREATE TABLE lake.clinic.visits AS SELECT id, late, age, asked_at, CAST(asked_at AS DATE) AS day, "
        f"asked_at + INTERVAL 1 DAY AS known_at FROM (SELECT *, TIMESTAMPTZ '{FIRST}' + to_hours(id - {before}) AS asked_at FROM rows)"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.training_dataset AS SELECT *, DATE '2020-03-01' AS training_date, 'train' AS split "
        "FROM lake.clinic.visits WHERE known_at < TIMESTAMPTZ '2020-03-01'"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.predictions AS SELECT id AS prediction_id, id, day, asked_at, age, score, 1 AS model_version "
        f"FROM rows JOIN lake.clinic.visits USING (id, age) WHERE id >= {before}"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.outcomes AS SELECT prediction_id, id, day, asked_at, late, known_at, true AS matured, model_version, score "
        "FROM lake.clinic.predictions JOIN lake.clinic.visits USING (id, day, asked_at)"
    )
    return connection


def decisions(*, changes: bool, alert: bool, weeks: int = 6) -> list[dict[str, Any]]:
    """The decision of each week, made on the day after it in knowledge of those before."""
    connection = lake_of(changes=changes, weeks=weeks)
    made: list[dict[str, Any]] = []
    windows = [str(FIRST + timedelta(weeks=number)) for number in range(weeks)]
    for number, window in enumerate(windows):
        for past in windows[: number + 1]:
            report(connection, past, version=1, alert=alert, made_on=FIRST + timedelta(weeks=number + 1))
        earlier = [earlier_decision(row) for row in made]
        made.append(decide(connection, window, load=no_reference, served=Served(), earlier=earlier, clinic=CLINIC))
    return made


def test_a_changed_relation_asks_for_a_training_before_any_window_is_bad() -> None:
    made = decisions(changes=True, alert=False)
    [first, *_] = [row for row in made if row["outcome"] == "retrain"]
    assert "younger models lose less, so that a training pays after" in first["reason"]
    assert first["forecast_high"] < 0 < first["forecast_due"]
    assert not first["must_gain"]
    # The labels of a window have come a day after it.
    assert (made[0]["probes"], made[0]["forecast_loss"]) == (None, None)


def test_where_nothing_changes_a_candidate_must_gain() -> None:
    made = decisions(changes=False, alert=True)
    assert [row["forecast_due"] for row in made] == [None] * len(made)
    assert made[-1]["outcome"] == "retrain"
    assert made[-1]["must_gain"]
    assert made[-1]["forecast_rows"] > 300


def test_without_a_training_dataset_nothing_is_forecast() -> None:
    connection = lake_of(changes=False)
    connection.execute("DROP TABLE lake.clinic.training_dataset")
    report(connection, str(FIRST), version=1, alert=False, made_on=FIRST + timedelta(weeks=1))
    row = decide(connection, str(FIRST), load=no_reference, served=Served(), clinic=CLINIC)
    assert (row["probes"], row["forecast_loss"], row["must_gain"]) == (None, None, False)
