"""A small solution for tests of assets without a stack: visits to a clinic, and a lake of tables in memory."""

import duckdb

from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs


def solution_inputs(cadence: str) -> SolutionInputs:
    spine = DbtModel(
        name="visits", table="clinic.visits", description="", columns={}, column_descriptions={}, partition_column="day"
    )
    solution = Solution.model_validate(
        {
            "name": "clinic",
            "description": "",
            "owners": ["team:clinic"],
            "problem": "binary_classification",
            "partitions": {"column": "day", "start": "2020-01-01", "cadence": cadence, "time_zone": "America/New_York"},
            "spine": {"model": "visits", "key": "id", "prediction_time": "at", "label": "late", "label_time": "known_at"},
            "features": [{"request": ["age"]}],
            "training": {"window": "30d", "holdout": "5d", "metric": "roc_auc", "estimator": {"type": "x.Y"}},
        }
    )
    return SolutionInputs(solution=solution, spine=spine, views=(), request=("age",), derived={})


def lake_in_memory() -> duckdb.DuckDBPyConnection:
    """A connection with an empty lake that has the schema `clinic`."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; CREATE SCHEMA lake.clinic")
    return connection
