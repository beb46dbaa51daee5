"""Policies compared on the rows of a real lake: labels with their delay, features as known, fits that are kept, and Dagster that shows it."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from lake_in_folder import lake_in_folder

from mlops_assets.core.errors import StackError
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.ml.history import History
from mlops_assets.operations.changed_rows import RelationChange
from mlops_assets.operations.policy_comparison import (
    PolicyComparison,
    arm_settings,
    compare_on_lake,
    publish_comparison,
)
from mlops_assets.operations.replay_plan import Period
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

PERIOD = Period(date(2020, 3, 2), date(2020, 4, 26))
PROBLEMS = {
    "binary_classification": ("late", "roc_auc", "sklearn.linear_model.LogisticRegression"),
    "multiclass_classification": ("ward", "log_loss", "sklearn.linear_model.LogisticRegression"),
    "regression": ("minutes", "mean_absolute_error", "sklearn.linear_model.LinearRegression"),
}


def inputs(problem: str = "binary_classification", **other: Any) -> SolutionInputs:
    label, metric, estimator = PROBLEMS[problem]
    training = {"window": "30d", "holdout": "10d", "metric": metric, "estimator": {"type": estimator}}
    solution = Solution.model_validate(
        {
            "name": "clinic",
            "description": "",
            "owners": ["team:clinic"],
            "problem": problem,
            "partitions": {"column": "day", "start": "2020-01-01", "end": "2020-05-01"},
            "spine": {"model": "visits", "key": "id", "prediction_time": "asked_at", "label": label, "label_time": "known_at"},
            "features": [{"request": ["age"]}],
            "training": training,
            **other,
        }
    )
    spine = DbtModel(
        name="visits", table="clinic.visits", description="", columns={}, column_descriptions={}, partition_column="day"
    )
    return SolutionInputs(solution=solution, spine=spine, views=(), request=("age",), derived={})


@pytest.fixture
def lake(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """Three visits an hour from February on, their labels known two days later; from 23 March on, the young are late instead of the old."""
    connection = lake_in_folder(tmp_path)
    connection.execute("CREATE SCHEMA clinic")
    connection.execute(
        "CREATE TABLE clinic.visits AS SELECT id, CAST(asked_at AS DATE) AS day, asked_at, age, "
        "((age > 50) = (asked_at < TIMESTAMPTZ '2020-03-23')) = (hash(id + 7) % 10 > 0) AS late, "
        "CASE WHEN late THEN 'A' WHEN id % 2 = 0 THEN 'B' ELSE 'C' END AS ward, "
        "CASE WHEN late THEN age ELSE -age END AS minutes, asked_at + INTERVAL 2 DAY AS known_at "
        "FROM (SELECT range AS id, TIMESTAMPTZ '2020-02-01' + to_minutes(20 * range) AS asked_at, CAST(hash(range) % 100 AS DOUBLE) AS age "
        "FROM range(6200))"
    )
    return connection


def compare(connection: duckdb.DuckDBPyConnection, folder: Path, names: Sequence[str], made: SolutionInputs) -> PolicyComparison:
    return compare_on_lake(connection, made, PERIOD, names, folder=folder, report=lambda text: None)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_policies_learn_what_changed_and_the_first_model_does_not(lake: duckdb.DuckDBPyConnection, tmp_path: Path, problem: str):
    compared = compare(lake, tmp_path, ["never", "sliding", "all"], inputs(problem))
    assert (len(compared.windows), compared.windows[0]) == (8, PERIOD.first)
    policies = {summary.policy: summary for summary in compared.summaries}
    assert list(policies) == ["never", "sliding", "all", "oracle"]
    assert (policies["never"].fits, policies["sliding"].fits) == (1, 2)
    assert policies["all"].loss < 0.8 * policies["never"].loss
    # The change of 23 March is seen on the 30th at the earliest.
    trainings = [event.day for event in compared.results["all"].events if event.action == "retrain"]
    assert min(trainings) >= date(2020, 3, 30)


def test_the_lake_changed_is_another_comparison_and_the_same_lake_is_not(lake: duckdb.DuckDBPyConnection, tmp_path: Path):
    first = compare(lake, tmp_path, ["sliding"], inputs())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "policies").iterdir()}
    assert len(kept) == 2
    assert compare(lake, tmp_path, ["sliding"], inputs()).results["sliding"].metrics == first.results["sliding"].metrics
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "policies").iterdir()} == kept
    lake.execute("UPDATE clinic.visits SET age = age + 1 WHERE id = 5")
    compare(lake, tmp_path, ["sliding"], inputs())
    assert len(list((tmp_path / "policies").iterdir())) == 4


def test_dagster_shows_it_where_the_decisions_are(lake: duckdb.DuckDBPyConnection, tmp_path: Path):
    compared = compare(lake, tmp_path, ["never"], inputs())
    with dg.DagsterInstance.ephemeral() as instance:
        publish_comparison(instance, "clinic", compared)
        [record] = instance.fetch_observations(dg.AssetKey(["clinic", "retraining_decision"]), limit=5).records
    metadata = record.asset_observation.metadata
    assert "| never |" in metadata["policies"].value
    assert metadata["policies_by_window"].value.startswith("![policies](data:image/png;base64,")
    assert compared.plot_path.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_said(lake: duckdb.DuckDBPyConnection, tmp_path: Path):
    with pytest.raises(StackError, match="There is no policy often") as raised:
        compare(lake, tmp_path, ["often"], inputs())
    assert "expanding" in raised.value.remedy
    for day, expected in (
        (date(2020, 2, 1), "has no rows before 2020-02-01"),
        (date(2020, 2, 2), "No label of clinic was known"),
    ):
        with pytest.raises(StackError, match=expected):
            compare_on_lake(lake, inputs(), Period(day, PERIOD.last), ["never"], folder=tmp_path, report=lambda text: None)
    lake.execute("DROP TABLE clinic.visits")
    with pytest.raises(StackError, match="There is no table") as raised:
        compare(lake, tmp_path, ["never"], inputs())
    assert raised.value.remedy == "mlops run clinic"


def test_the_arms_follow_the_yaml():
    settings = arm_settings(inputs(retraining={"bad_windows": "1 of 3", "cooldown": "2w", "max_age": None}).solution)
    assert (settings.window, settings.cooldown, settings.maximum_age) == (30, 14, None)
    assert (settings.minimum_bad_windows, settings.recent_windows) == (1, 3)
    assert settings.histories == (History(days=30, earlier=100_000), History(days=30, half_life=10))
    training = inputs().solution.training.model_dump(exclude_none=True)
    unweighted = {**training, "estimator": {"type": "sklearn.neighbors.KNeighborsClassifier"}}
    assert arm_settings(inputs(training=unweighted).solution).histories == (History(days=30),)


def test_a_change_of_the_relation_is_compared_apart(lake: duckdb.DuckDBPyConnection, tmp_path: Path):
    change = RelationChange("abrupt", "age", "42", PERIOD.first, PERIOD.last)
    plain, changed = (
        compare_on_lake(lake, inputs(), PERIOD, ["never"], folder=tmp_path, report=lambda text: None, change=each)
        for each in (None, change)
    )
    assert plain.results["never"].metrics != changed.results["never"].metrics
