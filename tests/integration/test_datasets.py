"""A training dataset as known at the time: a late backfill changes the next dataset, and not the one that was built before it."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.lake.datasets import find_dataset, rebuild_dataset, recorded_datasets
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.tables import LakeError
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_dataset import build_training_dataset

pytestmark = pytest.mark.long

TABLE = "arrivals.training_dataset"
TRAINING_DATE = "2020-03-01"
START = date(2020, 1, 1)


@pytest.fixture
def lake(make_lake: Callable[[], Lake]) -> Lake:
    made = make_lake()
    with made.connect(read_only=False) as connection:
        write_days(made, connection, START, 60, bonus=0)
    return made


def write_days(lake: Lake, connection: duckdb.DuckDBPyConnection, first: date, days: int, bonus: int) -> None:
    """40 rows a day to predict at noon, and what is known of each of four entities from midnight on."""
    window = PartitionRange("day", first, first + timedelta(days=days))
    calendar = f"(SELECT CAST(DATE '{first}' + d::INTEGER AS DATE) AS day FROM range({days}) r(d))"
    lake.replace(
        connection,
        table="arrivals.spine",
        query="SELECT day || '-' || i AS id, day, (day::TIMESTAMP + INTERVAL 12 HOUR)::TIMESTAMPTZ AS at_time, i % 4 AS place, "
        "CAST(i % 3 = 0 AS INTEGER) AS late, (day::TIMESTAMP + INTERVAL 18 HOUR)::TIMESTAMPTZ AS known_at "
        f"FROM {calendar}, range(40) t(i)",
        partition_range=window,
        author="test",
    )
    lake.replace(
        connection,
        table="features.load",
        query=f"SELECT i AS place, day::TIMESTAMPTZ AS event_timestamp, day, i * 10 + day(day) + {bonus} AS waiting "
        f"FROM {calendar}, range(4) t(i)",
        partition_range=window,
        author="test",
    )


def model(name: str, table: str, columns: list[str]) -> DbtModel:
    return DbtModel(
        name=name,
        table=table,
        description="",
        columns=dict.fromkeys(columns, ""),
        column_descriptions=dict.fromkeys(columns, ""),
        partition_column="day",
    )


def inputs(**training: Any) -> SolutionInputs:
    solution = Solution.model_validate(
        {
            "name": "arrivals",
            "description": "",
            "owners": ["team:test"],
            "problem": "binary_classification",
            "partitions": {"column": "day", "start": "2020-01-01", "end": "2021-01-01"},
            "spine": {"model": "spine", "key": "id", "prediction_time": "at_time", "label": "late", "label_time": "known_at"},
            "features": [{"view": "load"}],
            "training": {
                "window": "60d",
                "holdout": "10d",
                "metric": "roc_auc",
                "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
                **training,
            },
            "checks": {"minimum_rows": 10},
        }
    )
    view = FeatureView(
        model=model("load", "features.load", ["place", "event_timestamp", "day", "waiting"]),
        version=1,
        entity=("place",),
        event_timestamp="event_timestamp",
        **{field.name: None for field in dataclasses.fields(FeatureView) if field.name in ("freshness_days", "owner")},
    )
    return SolutionInputs(
        solution=solution,
        spine=model("spine", "arrivals.spine", ["id", "day", "at_time", "place", "late", "known_at"]),
        views=(SelectedView(view=view, features=("waiting",)),),
        request=(),
        derived={},
    )


def build(lake: Lake, as_known_at: str | None, **training: Any) -> str:
    """Materialize the dataset and return its fingerprint."""
    result = dg.materialize(
        [build_training_dataset(inputs(**training))],
        resources={"lake": lake, "settings": Settings(home=lake.data_directory)},
        partition_key=TRAINING_DATE,
        run_config={"ops": {"arrivals__training_dataset": {"config": {"as_known_at": as_known_at} if as_known_at else {}}}},
        raise_on_error=False,
    )
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    [event] = result.get_asset_materialization_events()
    return str(event.materialization.metadata["fingerprint"].value)


def backfill(lake: Lake) -> None:
    """An old day arrives again, corrected, after the dataset was built."""
    with lake.connect(read_only=False) as connection:
        write_days(lake, connection, START + timedelta(days=20), 1, bonus=1000)


def test_a_late_backfill_changes_the_next_dataset_and_the_former_one_rebuilds(lake: Lake, tmp_path: Path) -> None:
    former = build(lake, None)
    before_backfill = datetime.now(tz=UTC).isoformat()
    backfill(lake)
    newer = build(lake, None)

    assert newer != former
    with lake.connect(read_only=True) as connection:
        assert [dataset.fingerprint for dataset in recorded_datasets(connection, TABLE)] == [former, newer]
        assert rebuild_dataset(connection, find_dataset(connection, TABLE, former)) == former
        assert connection.execute("SELECT max(waiting) FROM temp.main.rebuilt_dataset").fetchall()[0][0] < 1000
        assert rebuild_dataset(connection, find_dataset(connection, TABLE, newer[:8])) == newer
        assert connection.execute("SELECT max(waiting) FROM temp.main.rebuilt_dataset").fetchall()[0][0] > 1000
    assert build(lake, before_backfill) == former


def test_building_twice_is_building_once(lake: Lake) -> None:
    first = build(lake, None)
    with lake.connect(read_only=True) as connection:
        rows = connection.execute(f"FROM lake.{TABLE} ORDER BY id").fetchall()
    assert build(lake, None) == first
    with lake.connect(read_only=True) as connection:
        assert connection.execute(f"FROM lake.{TABLE} ORDER BY id").fetchall() == rows
        assert len(recorded_datasets(connection, TABLE)) == 1


def test_a_dataset_that_brought_a_column_is_recorded_as_any_other(lake: Lake) -> None:
    first = build(lake, None)
    with lake.connect(read_only=False) as connection:
        connection.execute(f"ALTER TABLE lake.{TABLE} DROP COLUMN waiting")
    # As after a feature was added to a solution that has datasets.
    assert build(lake, None) == first
    with lake.connect(read_only=True) as connection:
        assert [dataset.fingerprint for dataset in recorded_datasets(connection, TABLE)] == [first, first]


def dataset_rows(lake: Lake, condition: str) -> list[tuple[Any, ...]]:
    with lake.connect(read_only=True) as connection:
        return connection.execute(f"SELECT id, day, waiting FROM lake.{TABLE} WHERE {condition} ORDER BY id").fetchall()


def test_rows_are_drawn_from_all_the_time_before_the_window(lake: Lake) -> None:
    section = {"window": "20d", "holdout": "5d", "earlier_rows": 800}
    fingerprint = build(lake, None, **section)
    earlier = dataset_rows(lake, "split = 'earlier'")
    # Of 1600 rows before the window.
    assert 700 < len(earlier) < 900
    assert len(dataset_rows(lake, "split = 'train'")) == 600
    assert len(dataset_rows(lake, "split = 'holdout'")) == 200
    days = [day for _, day, _ in earlier]
    assert set(days) == {START + timedelta(days=number) for number in range(40)}
    # With the features as they were known then.
    assert all(waiting == int(key.rpartition("-")[2]) % 4 * 10 + day.day for key, day, waiting in earlier)
    # The same again, by the record of the dataset too.
    assert build(lake, None, **section) == fingerprint
    with lake.connect(read_only=True) as connection:
        assert rebuild_dataset(connection, find_dataset(connection, TABLE, fingerprint)) == fingerprint
    # Fewer of them are some of those.
    build(lake, None, **(section | {"earlier_rows": 200}))
    fewer = dataset_rows(lake, "split = 'earlier'")
    assert 150 < len(fewer) < 250
    assert set(fewer) < set(earlier)
    # All of them, where there are fewer than are wanted, and none.
    build(lake, None, **{name: value for name, value in section.items() if name != "earlier_rows"})
    assert len(dataset_rows(lake, "split = 'earlier'")) == 1600
    build(lake, None, **(section | {"earlier_rows": 0}))
    assert not dataset_rows(lake, "split = 'earlier'")


def test_an_unknown_fingerprint_names_the_known_ones(lake: Lake) -> None:
    known = build(lake, None)
    with lake.connect(read_only=True) as connection, pytest.raises(LakeError, match=known):
        find_dataset(connection, TABLE, "0000000000000000x")


def test_a_moment_before_the_first_load_is_refused(lake: Lake) -> None:
    result = dg.materialize(
        [build_training_dataset(inputs())],
        resources={"lake": lake, "settings": Settings(home=lake.data_directory)},
        partition_key=TRAINING_DATE,
        run_config={"ops": {"arrivals__training_dataset": {"config": {"as_known_at": "2001-01-01T00:00:00+00:00"}}}},
        raise_on_error=False,
    )
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "its first snapshot is younger" in str(failure.step_failure_data.user_failure_data.description)
