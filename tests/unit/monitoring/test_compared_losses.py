"""Decisions by the losses of versions on the same rows, over the weeks of a clinic: a worse version goes, an equal one stays."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from bundles import contract
from decisions import AGE, INPUTS, Served, decide, empty_lake, no_reference, report, true_scores

from mlops_assets.monitoring.compared_losses import compare_versions
from mlops_assets.monitoring.decision_table import earlier_decision
from mlops_assets.serving.contract import Contract

FIRST = date(2020, 3, 2)
"""The Monday on which version 2, trained for the first of March, begins to predict in place of version 1."""
RECALIBRATING = replace(
    INPUTS,
    solution=INPUTS.solution.model_copy(
        update={"retraining": INPUTS.solution.retraining.model_copy(update={"recalibrate": True})}
    ),
)


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lake_of(kind: str, seed: int, weeks: int = 8) -> duckdb.DuckDBPyConnection:
    """A visit an hour, each label known a day later; version 2 is as good as the one before it, `worse`, or no longer calibrated (`bent`)."""
    random, count = np.random.default_rng(seed), weeks * 168
    age = random.random(count)
    odds = np.log(true_scores(age) / (1 - true_scores(age)))
    odds += {"equal": random.normal(0, 0.1, count), "worse": random.normal(0, 2, count), "bent": np.full(count, 1.5)}[kind]
    rows = pa.table(
        {"id": range(count), "age": age, "score": 1 / (1 + np.exp(-odds)), "late": random.random(count) < true_scores(age)}
    )
    connection = empty_lake()
    connection.register("rows", rows)
    connection.execute(
        f"CREATE TABLE lake.clinic.visits AS SELECT id, late, asked_at, CAST(asked_at AS DATE) AS day, asked_at + INTERVAL 1 DAY AS known_at "
        f"FROM (SELECT *, TIMESTAMPTZ '{FIRST}' + to_hours(id) AS asked_at FROM rows)"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.predictions AS SELECT id AS prediction_id, id, day, asked_at, age, score, 2 AS model_version "
        "FROM rows JOIN lake.clinic.visits USING (id)"
    )
    connection.execute(
        "CREATE TABLE lake.clinic.outcomes AS SELECT prediction_id, id, day, asked_at, late, known_at, true AS matured, model_version, score "
        "FROM lake.clinic.predictions JOIN lake.clinic.visits USING (id, day, asked_at)"
    )
    return connection


def decisions(connection: duckdb.DuckDBPyConnection, weeks: int = 8, **arguments: Any) -> Iterator[dict[str, Any]]:
    """Decide about one week after the other, each on the day after it, in knowledge of the decisions before."""
    made: list[dict[str, Any]] = []
    for number in range(weeks):
        day = FIRST + timedelta(weeks=number + 1)
        for past in range(number + 1):
            report(connection, str(FIRST + timedelta(weeks=past)), version=2, alert=False, made_on=day)
        window = str(FIRST + timedelta(weeks=number))
        made.append(
            decide(
                connection,
                window,
                load=no_reference,
                served=Served(version_2=1),
                earlier=[earlier_decision(row) for row in made],
                **arguments,
            )
        )
        yield made[-1]


@pytest.mark.parametrize("seed", range(3))
def test_a_worse_version_is_rolled_back_within_two_windows(seed: int) -> None:
    first, second, *_ = decisions(lake_of("worse", seed), weeks=2)
    assert (first["outcome"], first["rollback_rows"]) == ("keep", None)
    assert (second["outcome"], second["previous_version"], second["model_version"]) == ("roll back", 1, 2)
    assert (second["rollback_windows"], second["rollback_rows"]) == (2, 2 * 168 - 23)
    assert 0 < second["rollback_low"] < second["rollback_loss"] < second["rollback_high"]
    assert f"this one loses {second['rollback_loss']:+.4f} (" in second["reason"]


@pytest.mark.parametrize("seed", range(3))
def test_an_equal_version_stays(seed: int) -> None:
    rows = list(decisions(lake_of("equal", seed)))
    assert {row["outcome"] for row in rows} == {"keep"}
    # It is watched for six windows, from the second on.
    assert [row["rollback_rows"] is not None for row in rows] == [False] + [True] * 5 + [False] * 2


def test_a_version_that_is_no_longer_calibrated_is_recalibrated() -> None:
    connection = lake_of("bent", 0)
    first, second, third = decisions(connection, weeks=3, clinic=RECALIBRATING)
    # The first window has no labels that were known before it, the second has too few.
    assert [row["outcome"] for row in (first, second)] == ["keep", "roll back"]
    assert (third["model_version"], third["recalibration_rows"]) == (2, 168 - 23)
    assert third["recalibration_high"] < 0


def test_nothing_is_compared_where_yaml_says_so() -> None:
    section = INPUTS.solution.retraining.model_copy(update={"roll_back": False})
    clinic = replace(INPUTS, solution=INPUTS.solution.model_copy(update={"retraining": section}))
    rows = list(decisions(lake_of("worse", 0), weeks=3, clinic=clinic))
    assert {(row["outcome"], row["previous_version"], row["rollback_rows"]) for row in rows} == {("keep", None, None)}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"features": [*AGE, {"name": "ward", "kind": "categorical", "type": "varchar", "categories": ["a"]}]}, "ward"),
        ({"features": [{"name": "age", "kind": "categorical", "type": "varchar", "categories": ["a"]}]}, "age"),
        ({"derived_features": [{"name": "age", "expression": "1 - years"}]}, "age"),
        (
            {"feature_views": [{"name": "ages", "version": 2, "entity": ["id"], "features": ["age"], "online": True}]},
            "ages version 2",
        ),
        ({"classes": [0, 2]}, "other classes"),
    ],
)
def test_a_version_that_reads_or_answers_other_things_is_not_compared(before: dict[str, Any], words: str) -> None:
    class Other(Served):
        def contract(self, version: int) -> Contract:
            changes = before if version == 1 else {}
            return contract(
                **{"problem": "binary_classification", "classes": [0, 1], "decision_threshold": 0.5, "features": AGE} | changes
            )

    connection = lake_of("worse", 0, weeks=2)
    moment = INPUTS.midnight(FIRST + timedelta(weeks=2))
    compared = compare_versions(
        connection, INPUTS, Other(), version=2, fitted=2, previous=1, window=FIRST + timedelta(weeks=1), moment=moment
    )
    assert compared.obstacle == words
    assert [set(window.sums) for window in compared.windows] == [{"champion"}] * 2
