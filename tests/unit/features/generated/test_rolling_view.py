"""Feature views declared in YAML: their contract, how far back they read, and what is refused."""

from typing import Any

import pytest
import yaml
from parcels import SOURCE, VIEWS
from pydantic import ValidationError

from mlops_assets.features.generated.dbt_model import GeneratedModel
from mlops_assets.features.generated.rolling_view import derive_view
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.source import Source


def derive(view: str = "depot_history", *, source: str = SOURCE, **changes: Any) -> GeneratedModel:
    """A view of the parcels with some of its fields changed."""
    attributes = yaml.safe_load(source + VIEWS)["attributes"]
    attributes["feature_views"][view] |= changes
    return derive_view(view, Source.model_validate(attributes), folder="parcels", origin="defs.yaml")


def refusal(**changes: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        derive(**changes)
    return caught.value


def test_the_contract_has_a_type_and_a_meaning_for_each_feature() -> None:
    columns = {column["name"]: column for column in derive("depot_parcels").document["columns"]}
    types = {name: column["data_type"] for name, column in columns.items()}
    assert types == {
        "depot": "varchar",
        "event_timestamp": "timestamp with time zone",
        "depot_heavy_1d": "integer",
        "depot_weight_2d": "double",
        "depot_distance_2d": "bigint",
        "depot_mean_weight_3d": "double",
        "depot_mean_distance_3d": "double",
        "depot_last_weight_3d": "double",
        "depot_hours_3d": "double",
        "event_date": "date",
        "_loaded_at": "timestamp with time zone",
    }
    assert (
        columns["depot_heavy_1d"]["description"] == "The rows of parcels with weight_kg > 20 in the day before event_timestamp."
    )
    assert "null without any" in columns["depot_mean_weight_3d"]["description"]
    assert all(column["description"] for column in columns.values())


@pytest.mark.parametrize(
    ("changes", "cadence", "days"),
    [
        ({}, "daily", 7 + 2 + 1 + 2),
        ({"late": "1w"}, "daily", 7 + 2 + 1 + 7),
        ({"every": "hour"}, "daily", 7 + 1 + 1 + 2),
        ({}, "monthly", 7 + 2 + 1 + 2 + 30),
    ],
)
def test_it_reads_the_partitions_in_which_its_windows_lie(changes: dict[str, Any], cadence: str, days: int) -> None:
    model = derive(source=SOURCE.replace("cadence: daily", f"cadence: {cadence}"), **changes)
    assert f"history_days={days}" in model.sql
    assert model.document["config"]["meta"]["dagster"] == {"history_days": days}


def test_a_value_expires_after_its_longest_window_unless_said_otherwise() -> None:
    def freshness(**changes: Any) -> int:
        return derive(**changes).document["config"]["meta"]["feature_view"]["freshness_days"]

    assert freshness() == 9
    assert freshness(freshness="3d") == 3


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"table": "parcel"}, "table", "the source has no table 'parcel'; did you mean parcels?"),
        ({"entity": ["depo"]}, "entity.0", "parcels has no column 'depo'; did you mean depot?"),
        ({"time": "sent"}, "time", "did you mean sent_at"),
        ({"known_at": "sent_date"}, "known_at", "a moment is a timestamptz; sent_date is a date"),
        ({"features": {"x": {"mean": "weight", "over": "7d"}}}, "features.x.mean", "did you mean weight_kg?"),
        ({"features": {"x": {"mean": "depot", "over": "7d"}}}, "features.x.mean", "mean is of a number; 'depot' is VARCHAR"),
        ({"features": {"x": {"rate": "weight_kg", "over": "7d"}}}, "features.x.rate", "rate is of a condition"),
        ({"features": {"x": {"sum": "*", "over": "7d"}}}, "features.x.sum", "has no place"),
        ({"features": {"x": {"count": "sent_at < now()", "over": "7d"}}}, "features.x.count", "no deterministic scalar"),
    ],
)
def test_what_does_not_fit_says_where_and_what_is_allowed(changes: dict[str, Any], path: str, words: str) -> None:
    error = refusal(**changes)
    assert ".".join(map(str, error.path)) == f"feature_views.depot_history.{path}"
    assert words in error.message


def test_a_table_without_partitions_is_refused() -> None:
    whole = SOURCE.replace("      partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01, cadence: daily}\n", "")
    with pytest.raises(ConfigurationError, match="parcels has no `partitions`"):
        derive(source=whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": {"x": {"over": "7d"}}}, "give exactly one of count, sum"),
        ({"features": {"x": {"sum": "weight_kg", "mean": "weight_kg", "over": "7d"}}}, "give exactly one of count, sum"),
        ({"features": {"x": {"count": "*", "over": "2m"}}}, "in days or weeks"),
        ({"features": {"depot": {"count": "*", "over": "2d"}}}, "is a column of the view already"),
        ({"features": {"x": {"time_since": "minutes", "over": "2d"}}}, "'hours' or 'days'"),
        ({"late": "1m"}, "in days or weeks"),
        ({"features": {}}, "at least 1"),
    ],
)
def test_what_is_no_view_at_all_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        derive(**changes)
