"""What Dagster shows of a feature view."""

from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.feature_store.usage import ViewUse
from mlops_assets.features.dbt_translation import describe_view

VIEW = FeatureView(
    model=DbtModel(
        name="history",
        table="features.history",
        description="",
        columns={"carrier": "varchar", "at": "timestamptz", "delay": "double"},
        column_descriptions={},
        partition_column=None,
    ),
    version=2,
    entity=("carrier",),
    event_timestamp="at",
    freshness_days=30,
    owner="team:a",
)
USES = [
    ViewUse(solution="old", view="history", version=1, features=("delay",), pinned=True),
    ViewUse(solution="new", view="history", version=2, features=("delay",), pinned=True),
]


def test_metadata_name_the_version_and_its_users() -> None:
    spec = describe_view(dg.AssetSpec("history", metadata={"kept": 1}), VIEW, USES, "daily")
    assert spec.metadata["kept"] == 1
    assert (spec.metadata["version"], spec.metadata["entity"], spec.metadata["freshness_days"]) == (2, "carrier", 30)
    assert spec.metadata["used_by_solutions"].value == ["new"]
    assert spec.metadata["features"].value == ["delay"]


@pytest.mark.parametrize(("refresh_days", "cadence", "days"), [(None, "daily", 2), (None, "yearly", 732), (35, "daily", 35)])
def test_a_view_is_stale_when_an_update_was_missed(refresh_days: int | None, cadence: str, days: int) -> None:
    spec = describe_view(dg.AssetSpec("history"), replace(VIEW, refresh_days=refresh_days), [], cadence)
    policy = spec.freshness_policy
    assert policy is not None
    assert policy.fail_window.to_timedelta() == timedelta(days=days)  # type: ignore[attr-defined]
