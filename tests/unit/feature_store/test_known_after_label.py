"""Columns of raw tables behind features, and features that are known only with the label."""

from typing import Any

import pytest

from mlops_assets.feature_store.known_after_label import ColumnOrigins, find_late_features
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import RawTable

RAW = RawTable.model_validate(
    {
        "description": "Parcels.",
        "files": ["parcels.csv"],
        "format": "csv",
        "columns": {
            "id": {"type": "varchar"},
            "depot": {"type": "varchar"},
            "sent_at": {"type": "timestamptz"},
            "promised_at": {"type": "timestamptz"},
            "delivered_at": {"type": "timestamptz"},
            "hours": {"type": "double", "expression": "epoch(delivered_at - sent_at) / 3600"},
        },
    }
)
SPINE = (
    "select id, depot, sent_at, promised_at, hours, promised_at - sent_at as time_given, delivered_at > promised_at as is_late, "
    "delivered_at from raw.parcels"
)
RATE = (
    "select depot, sent_at as known_at, avg(delivered_at > promised_at) over (partition by depot) as late_rate from raw.parcels"
)
BOUNDED = (
    "select days.depot, days.known_at, avg((p.delivered_at > p.promised_at)::int) as late_rate from (select depot, sent_at as known_at "
    "from raw.parcels) as days left join raw.parcels as p on p.depot = days.depot and p.delivered_at <= days.known_at group by all"
)


def model(name: str, *columns: str) -> dict[str, Any]:
    described = {column: {} for column in columns}
    source = "source.shop.raw.parcels"
    return {
        "resource_type": "model",
        "unique_id": name,
        "schema": "s",
        "alias": name,
        "columns": described,
        "depends_on": {"nodes": [source]},
    }


def origins(history: str) -> ColumnOrigins:
    source = {"resource_type": "source", "schema": "raw", "name": "parcels", "columns": {column: {} for column in RAW.columns}}
    spine = model("spine", "id", "depot", "sent_at", "promised_at", "hours", "time_given", "is_late", "delivered_at")
    nodes = {"spine": spine, "history": model("history", "depot", "known_at", "late_rate")}
    manifest = {"nodes": nodes, "sources": {"source.shop.raw.parcels": source}}
    return ColumnOrigins(manifest, {"spine": SPINE, "history": history}, {"parcels": RAW})


def dbt_model(name: str) -> DbtModel:
    return DbtModel(name=name, table=f"s.{name}", description="", columns={}, column_descriptions={}, partition_column=None)


def late(request: list[str], history: str = BOUNDED, event_timestamp: str | None = "known_at") -> dict[str, bool]:
    """What is found: the field -> whether it is certain."""
    solution = Solution.model_validate(
        {
            "name": "parcels",
            "description": "Late parcels.",
            "owners": ["team:logistics"],
            "problem": "binary_classification",
            "partitions": {"column": "day", "start": "2024-01-01"},
            "spine": {
                "model": "spine",
                "key": "id",
                "prediction_time": "sent_at",
                "label": "is_late",
                "label_time": "delivered_at",
            },
            "features": [{"request": request}, {"view": "history"}],
            "training": {"window": "60d", "holdout": "14d", "metric": "roc_auc", "estimator": {"type": "a.B"}},
        }
    )
    view = FeatureView(
        model=dbt_model("history"),
        version=1,
        entity=("depot",),
        event_timestamp=event_timestamp,
        freshness_days=None,
        owner=None,
    )
    selected = {1: SelectedView(view=view, features=("late_rate",))}
    found = find_late_features(solution, dbt_model("spine"), selected, origins(history))
    return {".".join(map(str, feature.path)): feature.is_certain for feature in found}


def test_origins_are_columns_of_raw_tables_through_models_and_expressions() -> None:
    assert origins(RATE).of("s.spine", "hours") == {("raw.parcels", "delivered_at"), ("raw.parcels", "sent_at")}
    assert origins(RATE).of("s.history", "known_at") == {("raw.parcels", "sent_at")}


@pytest.mark.parametrize(
    ("column", "certain"),
    [("depot", None), ("hours", True), ("delivered_at", True), ("promised_at", False), ("time_given", False), ("sent_at", None)],
)
def test_a_column_of_the_spine_that_needs_the_time_of_the_label_is_late(column: str, certain: bool | None) -> None:
    found = late([column])
    assert found == ({} if certain is None else {"features.0.request.0": certain})


def test_a_view_without_a_time_of_knowledge_that_has_former_labels_is_late() -> None:
    assert late(["depot"], event_timestamp=None) == {"features.1.view": True}


def test_a_view_that_looks_at_when_its_labels_became_known_is_right() -> None:
    assert late(["depot"], history=BOUNDED) == {}
    assert late(["depot"], history=RATE) == {"features.1.view": False}
