"""Tables of incremental models beside changed contracts, in a real lake and a real step."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from lake_in_folder import lake_in_folder

from mlops_assets.features.dbt_schemas import follow_contracts
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import column_types

KEY = dg.AssetKey(["features", "load"])


class FolderLake(Lake):
    """A lake whose catalog is a file."""

    def connect(self, *, read_only: bool) -> Any:
        return lake_in_folder(self.data_directory)


@pytest.fixture
def lake(tmp_path: Path) -> FolderLake:
    with lake_in_folder(tmp_path) as connection:
        connection.execute("CREATE SCHEMA features; CREATE TABLE features.load AS SELECT 1::INTEGER AS waiting, 'x' AS \"Place\"")
    return FolderLake("", tmp_path, tmp_path)


def node(columns: dict[str, str], **config: Any) -> dict[str, Any]:
    return {
        "columns": {name: {"name": name, "data_type": kind} for name, kind in columns.items()},
        "config": {"materialized": "incremental", **config},
    }


def follow(lake: FolderLake, model: dict[str, Any]) -> str | None:
    """What the step fails with, None when it does not."""
    outcome: list[str | None] = []

    @dg.asset(key=KEY)
    def load(context: dg.AssetExecutionContext) -> None:
        try:
            follow_contracts(context, lake, {KEY: model})
            outcome.append(None)
        except dg.Failure as failure:
            outcome.append(None if failure.allow_retries else failure.description)

    dg.materialize([load])
    return outcome[0]


def types(lake: FolderLake) -> dict[str, str]:
    with lake.connect(read_only=True) as connection:
        return column_types(connection, "lake.features.load")


def test_a_wider_type_widens_the_table(lake: FolderLake) -> None:
    assert follow(lake, node({"waiting": "bigint", "place": "varchar"})) is None
    assert types(lake) == {"waiting": "BIGINT", "Place": "VARCHAR"}


def test_a_type_that_would_lose_values_is_refused_and_nothing_changes(lake: FolderLake) -> None:
    problem = follow(lake, node({"waiting": "bigint", "place": "integer"}, on_schema_change="fail"))
    assert problem is not None
    assert "features.load" in problem
    assert "Place" in problem
    assert types(lake) == {"waiting": "INTEGER", "Place": "VARCHAR"}


def test_columns_that_came_and_went_are_refused_with_the_command_that_changes_them(lake: FolderLake) -> None:
    problem = follow(lake, node({"waiting": "integer", "town": "varchar"}, on_schema_change="fail"))
    assert problem is not None
    assert "new town, gone Place" in problem
    assert "mlops schema plan features.load --drop Place (or, for a new name of the same column, --rename Place=town)" in problem
    assert follow(lake, node({"waiting": "integer", "town": "varchar"}, on_schema_change="append_new_columns")) is None


@pytest.mark.parametrize("model", [node({"waiting": "varchar"}, materialized="table"), node({}), node({"waiting": ""})])
def test_a_table_that_is_built_anew_or_has_no_contract_is_left_alone(lake: FolderLake, model: dict[str, Any]) -> None:
    assert follow(lake, model) is None
    assert types(lake) == {"waiting": "INTEGER", "Place": "VARCHAR"}


def test_a_table_that_is_not_there_yet_is_dbt_s_to_make(lake: FolderLake) -> None:
    with lake.connect(read_only=False) as connection:
        connection.execute("DROP TABLE features.load")
    assert follow(lake, node({"waiting": "bigint"}, on_schema_change="fail")) is None
