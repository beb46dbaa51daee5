"""The inputs of a small solution with one feature view, for tests on lakes that they fill themselves."""

from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

SOLUTION = "late"
DECLARED = {
    "name": SOLUTION,
    "description": "",
    "owners": ["team:test"],
    "problem": "binary_classification",
    "partitions": {"column": "day", "start": "2020-01-01", "end": "2021-01-01"},
    "spine": {"model": "spine", "key": "id", "prediction_time": "at_time", "label": "was_late", "label_time": "known_at"},
    "features": [{"view": "load"}, {"request": ["distance"]}],
    "training": {
        "window": "60d",
        "holdout": "10d",
        "metric": "roc_auc",
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
    },
}


def model(name: str, table: str, columns: list[str], partition_column: str | None) -> DbtModel:
    return DbtModel(
        name=name,
        table=table,
        description="",
        columns=dict.fromkeys(columns, ""),
        column_descriptions=dict.fromkeys(columns, ""),
        partition_column=partition_column,
    )


LOAD = FeatureView(
    model=model("load", "features.load", ["place", "moment", "day", "waiting", "open", "_loaded_at"], "day"),
    version=1,
    entity=("place",),
    event_timestamp="moment",
    freshness_days=2,
    owner=None,
)
INPUTS = SolutionInputs(
    solution=Solution.model_validate(DECLARED),
    spine=model("spine", f"{SOLUTION}.spine", ["id", "day", "at_time", "place", "distance", "was_late", "known_at"], "day"),
    views=(SelectedView(LOAD, LOAD.features),),
    request=("distance",),
    derived={},
)
