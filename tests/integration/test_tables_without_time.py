"""A solution whose table has no time, in a real lake: what its compiled spine holds, and what is trained on, held out and predicted."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.features.generated.spine import derive_spine
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.monitoring.retraining_facts import count_labelled, training_day
from mlops_assets.schema.declarations import DeclaredTable
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import RawTable
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_dataset import build_training_dataset
from mlops_assets.training.training_frame import labelled_rows, split_query, training_frame

DAY = date(2024, 3, 1)
CLASSES = ("rote Art", "вид", "kind three")
COLUMNS: dict[str, Any] = {"width": {"type": "double"}, "banded": {"type": "boolean"}, "kind": {"type": "varchar"}}


def declared(**changes: Any) -> Solution:
    attributes = {
        "name": "plants",
        "description": "Which kind of plant.",
        "owners": ["team:test"],
        "problem": "multiclass_classification",
        "partitions": {"start": "2024-01-01"},
        "spine": {"table": "plants", "label": "kind"},
        "features": [{"request": ["width", "banded"]}],
        "training": {"metric": "accuracy", "estimator": {"type": "sklearn.linear_model.LogisticRegression"}},
    }
    return Solution.model_validate(attributes | changes)


def compiled(solution: Solution, days: tuple[str, ...]) -> str:
    """The SQL of the spine as dbt renders it for `days`."""
    table = RawTable.model_validate({"description": "", "files": ["x.csv"], "format": "csv", "columns": COLUMNS})
    tables = {"plants": DeclaredTable("plants", "plants", ("team:test",), Path("defs/plants/defs.yaml"), table)}
    sql = derive_spine(solution, origin="defs.yaml", tables=tables, entities={}).sql
    values = ", ".join(f"(DATE '{day}')" for day in days)
    return (
        sql.replace("{{ source('raw', 'plants') }}", "lake.raw.plants")
        .replace("{{ mlops.snapshot_days('snapshot_date') }}", f"(VALUES {values}) days(snapshot_date)")
        .replace("{{ mlops.start_of_business_date('snapshot_date') }}", "snapshot_date::TIMESTAMP AT TIME ZONE 'UTC'")
    )


def inputs(solution: Solution) -> SolutionInputs:
    columns = {"row_key": "varchar", "snapshot_date": "date", "width": "double", "banded": "boolean", "kind": "varchar"}
    spine = DbtModel(
        name="plants_spine",
        table="plants.spine",
        description="",
        columns=columns,
        column_descriptions={},
        partition_column="snapshot_date",
    )
    return SolutionInputs(solution=solution, spine=spine, views=(), request=("width", "banded"), derived={})


def take_snapshot(lake: Lake, connection: duckdb.DuckDBPyConnection, solution: Solution, day: date) -> None:
    lake.replace(
        connection,
        table="plants.spine",
        query=compiled(solution, (day.isoformat(),)),
        partition_range=PartitionRange("snapshot_date", day, date.fromordinal(day.toordinal() + 1)),
        author="test",
    )


def write_plants(lake: Lake, connection: duckdb.DuckDBPyConnection, rows: int) -> None:
    """A third of each class, every tenth row without label, every seventh without width, and each row twice."""
    names = "[" + ", ".join(f"'{name}'" for name in CLASSES) + "]"
    lake.replace(
        connection,
        table="raw.plants",
        query=f"SELECT CASE WHEN i % 7 > 0 THEN i / 10 END AS width, i % 2 = 0 AS banded, "
        f"CASE WHEN i % 10 > 0 THEN {names}[i % 3 + 1] END AS kind, TIMESTAMPTZ '2024-01-01' AS _loaded_at "
        f"FROM range({rows // 2}) r(i), range(2) twice(j)",
        partition_range=None,
        author="test",
    )


@pytest.fixture
def lake(make_lake: Callable[[], Lake]) -> Lake:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        write_plants(lake, connection, 300)
        take_snapshot(lake, connection, declared(), DAY)
    return lake


def test_every_class_is_held_out_by_the_same_share(lake: Lake) -> None:
    with lake.connect(read_only=True) as connection:
        rows = connection.execute(
            "SELECT kind, count(*), count(*) FILTER (WHERE held_out) FROM lake.plants.spine GROUP BY 1"
        ).fetchall()
    shares = {kind: (count, held_out) for kind, count, held_out in rows}
    assert shares == {**dict.fromkeys(CLASSES, (90, 18)), None: (30, 0)}


def test_rows_that_are_alike_have_keys_of_their_own_which_the_label_does_not_change(lake: Lake) -> None:
    keys = "SELECT row_key FROM lake.plants.spine WHERE width = 2.0 AND snapshot_date = ? ORDER BY 1"
    with lake.connect(read_only=False) as connection:
        before = connection.execute(keys, [DAY]).fetchall()
        connection.execute("UPDATE lake.raw.plants SET kind = 'вид' WHERE width = 2.0")
        take_snapshot(lake, connection, declared(), date(2024, 3, 2))
        assert connection.execute(keys, [date(2024, 3, 2)]).fetchall() == before
        unique = "SELECT count(*) = count(DISTINCT row_key) FROM lake.plants.spine WHERE snapshot_date = ?"
        assert connection.execute(unique, [DAY]).fetchall() == [(True,)]
    assert len(before) == 2


def test_a_training_is_one_snapshot_and_what_it_uses_is_not_predicted(lake: Lake) -> None:
    of_solution = inputs(declared())
    with lake.connect(read_only=False) as connection:
        take_snapshot(lake, connection, declared(), date(2024, 3, 2))
    result = dg.materialize(
        [build_training_dataset(of_solution)],
        resources={"lake": lake, "settings": Settings(home=lake.data_directory)},
        partition_key=DAY.isoformat(),
    )
    [event] = result.get_asset_materialization_events()
    assert event.materialization.metadata["rows_by_split"].value == {"holdout": 54, "train": 216}
    failed = {each.check_name for each in result.get_asset_check_evaluations() if not each.passed}
    assert failed == set(), "no row is told to know the future, and 216 rows are enough for two features"
    with lake.connect(read_only=True) as connection:
        trained = "SELECT row_key FROM lake.plants.training_dataset WHERE split = 'train'"
        predicted = f"SELECT row_key FROM lake.plants.spine WHERE snapshot_date = DATE '{DAY}' AND {of_solution.is_predicted}"
        counted = connection.execute(f"SELECT count(*), count(*) FILTER (WHERE row_key IN ({trained})) FROM ({predicted})")
        assert counted.fetchall() == [(84, 0)]


def test_a_decision_counts_the_rows_that_came_since_the_training(lake: Lake) -> None:
    of_solution, next_day = inputs(declared()), date(2024, 3, 2)
    with lake.connect(read_only=False) as connection:
        write_plants(lake, connection, 330)
        take_snapshot(lake, connection, declared(), next_day)
        assert training_day(connection, of_solution, next_day) == DAY
        assert training_day(connection, of_solution, date(2024, 3, 10)) == next_day
        with pytest.raises(dg.Failure, match="has no snapshot before 2024-03-01"):
            training_day(connection, of_solution, DAY)
        rows = f"SELECT * FROM lake.plants.spine WHERE {labelled_rows(of_solution, next_day)}"
        assert count_labelled(connection, of_solution, rows, None) == (296, 296)
        assert count_labelled(connection, of_solution, rows, DAY) == (296, 26)


def test_a_row_that_was_held_out_stays_so_when_rows_come(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        write_plants(lake, connection, 330)
        take_snapshot(lake, connection, declared(), date(2024, 3, 2))
        moved = connection.execute(
            "SELECT count(*) FILTER (WHERE a.held_out <> b.held_out), count(*) FROM lake.plants.spine a JOIN lake.plants.spine b "
            f"USING (row_key) WHERE a.snapshot_date = DATE '{DAY}' AND b.snapshot_date = DATE '2024-03-02' AND a.held_out IS NOT NULL"
        ).fetchall()
    [(count, rows)] = moved
    assert rows == 270
    assert count <= 10, "but for those at the border of their class"


def test_a_number_is_held_out_by_the_same_share_of_its_range(lake: Lake) -> None:
    solution = declared(
        problem="regression", spine={"table": "plants", "label": "width"}, features=[{"request": ["banded", "kind"]}]
    )
    with lake.connect(read_only=True) as connection:
        rows = connection.execute(
            "SELECT ntile(5) OVER (ORDER BY width, row_key), held_out "
            f"FROM ({compiled(solution, (DAY.isoformat(),))}) WHERE held_out IS NOT NULL"
        ).fetchall()
    held_out = [sum(held for part, held in rows if part == number) for number in range(1, 6)]
    assert len(rows) == 256
    assert all(count in (10, 11) for count in held_out), held_out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spine": {"table": "plants", "label": "kind", "prediction_time": "at"}}, "belong together"),
        ({"spine": {"model": "plants_spine", "key": "id", "label": "kind"}}, "they can be left out with a `table` alone"),
        ({"partitions": {"start": "2024-01-01", "cadence": "monthly"}}, "has a snapshot a day"),
        (
            {"training": {"window": "30d", "metric": "accuracy", "estimator": {"type": "x.Y"}}},
            "training.window belong to a table with time",
        ),
        (
            {"training": {"refit": True, "metric": "accuracy", "estimator": {"type": "x.Y"}}},
            "training.refit belongs to a table with time",
        ),
        (
            {"training": {"earlier_rows": 100, "metric": "accuracy", "estimator": {"type": "x.Y"}}},
            "training.earlier_rows belongs to a table with time",
        ),
    ],
)
def test_what_needs_time_is_refused_without_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declared(**changes)


def test_a_dataset_is_the_same_when_it_is_built_again(lake: Lake) -> None:
    of_solution = inputs(declared())
    with lake.connect(read_only=True) as connection:
        [[snapshot]] = connection.execute("SELECT id FROM lake.current_snapshot()").fetchall()
        query = split_query(of_solution, DAY, training_frame(of_solution, DAY, snapshot).query)
        twice = [sorted(connection.execute(query).fetchall(), key=str) for _ in range(2)]
    assert twice[0] == twice[1]
    assert len(twice[0]) == 270
