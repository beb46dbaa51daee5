"""Spines derived from a raw table: their SQL and contract, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from parcels import SOLUTION, SOURCE

from mlops_assets.features.generated.dbt_model import GeneratedModel
from mlops_assets.features.generated.spine import derive_spine
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.declarations import DeclaredTable
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source


def derive(changes: dict[str, Any] | None = None, *, source: str = SOURCE, **entities: tuple[str, ...]) -> GeneratedModel:
    """The spine of the solution of the parcels; `changes` are to its attributes, those of `spine` within it."""
    attributes = yaml.safe_load(SOLUTION)["attributes"]
    for name, value in (changes or {}).items():
        attributes[name] = {**attributes[name], **value} if name == "spine" else value
    declared = Source.model_validate(yaml.safe_load(source)["attributes"])
    tables = {
        name: DeclaredTable(name, "parcels", tuple(declared.owners), Path("defs/parcels/defs.yaml"), table)
        for name, table in declared.tables.items()
    }
    return derive_spine(Solution.model_validate(attributes), origin="defs.yaml", tables=tables, entities=entities)


def columns(model: GeneratedModel) -> dict[str, dict[str, Any]]:
    return {column["name"]: column for column in model.document["columns"]}


def refused(changes: dict[str, Any], *, source: str = SOURCE) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        derive(changes, source=source)
    return caught.value


def test_the_contract_is_that_of_the_columns_of_the_table() -> None:
    found = columns(derive())
    assert list(found) == [
        "parcel_id", "sent_date", "sent_at", "depot", "weight_kg", "distance_km", "is_late", "delivered_at", "_loaded_at",
    ]  # fmt: skip
    not_null = [name for name, column in found.items() if column.get("constraints") == [{"type": "not_null"}]]
    assert not_null == ["parcel_id", "sent_date", "sent_at", "depot", "distance_km", "_loaded_at"]
    assert found["parcel_id"]["data_tests"] == ["unique"]
    assert found["sent_at"]["data_type"] == "timestamp with time zone"
    assert found["is_late"]["data_type"] == "boolean"
    assert found["weight_kg"]["description"] == "Weight in kilograms."


def test_only_columns_that_the_solution_uses_are_there() -> None:
    found = columns(derive({"features": [{"request": ["weight_kg"]}, {"view": "depot_history"}]}, depot_history=("depot",)))
    assert "depot" in found, "the key of a feature view"
    assert "distance_km" not in found


def test_a_label_of_whole_numbers_is_tested_to_be_one() -> None:
    late = {"is_late": "(delivered_at > sent_at)::INTEGER"}
    found = columns(derive({"spine": {"expressions": late}}))["is_late"]
    assert found["data_type"] == "integer"
    assert found["data_tests"] == [{"accepted_values": {"arguments": {"values": [0, 1], "quote": False}}}]


def test_the_partition_of_a_whole_table_is_the_date_of_the_prediction() -> None:
    whole = SOURCE.replace("      partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01, cadence: daily}\n", "")
    partitions = {"column": "day", "start": "2024-01-01", "time_zone": "Europe/Berlin"}
    model = derive({"partitions": partitions}, source=whole)
    assert "{{ mlops.business_date('sent_at') }} as day" in model.sql
    assert model.document["config"]["meta"]["time_zone"] == "Europe/Berlin"
    assert columns(model)["day"]["data_type"] == "date"


def test_names_that_are_no_plain_sql_are_quoted() -> None:
    model = derive(
        {"features": [{"request": ["Order", "a {{b}}"]}]},
        source=SOURCE + '        Order: {type: integer}\n        "a {{b}}": {type: integer}\n',
    )
    assert '    "Order",\n    {% raw %}"a {{b}}"{% endraw %},' in model.sql
    quoted = [column["name"] for column in model.document["columns"] if column.get("quote")]
    assert quoted == ["Order", "{% raw %}a {{b}}{% endraw %}"], "dbt quotes them in the SQL of the contract"


def test_a_key_that_is_made_does_not_hold_what_the_label_is_computed_from() -> None:
    spine = {"key": "row_key", "label": "is_late", "expressions": {"is_late": "delivered_at - sent_at > INTERVAL 24 HOUR"}}
    sql = derive({"spine": spine}).sql
    assert "to_json(row(parcel_id, sent_at, depot, weight_kg, distance_km, sent_date))" in sql
    assert "order by (delivered_at - sent_at > INTERVAL 24 HOUR))" in sql


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"spine": {"table": "parcel"}}, "spine.table", "there is no raw table 'parcel'; did you mean parcels?"),
        ({"spine": {"key": "parcelid"}}, "spine.key", "has no column 'parcelid'; did you mean parcel_id?"),
        ({"spine": {"label": "is_lat"}}, "spine.label", "did you mean is_late"),
        ({"features": [{"request": ["weight"]}]}, "features.0.request.0", "did you mean weight_kg?"),
        ({"partitions": {"column": "day", "start": "2024-01-01"}}, "partitions.column", "write sent_date"),
        ({"spine": {"prediction_time": "delivered_at"}}, "spine.prediction_time", "say `required: true` in defs/parcels/defs.yaml"),
        ({"spine": {"expressions": {"is_late": "delivered > 1"}}}, "spine.expressions.is_late", "did you mean delivered_at?"),
        ({"spine": {"expressions": {"is_late": "now() > sent_at"}}}, "spine.expressions.is_late", "no deterministic scalar"),
        (
            {"spine": {"label": "depot", "expressions": {"depot": "upper(depot)"}}},
            "spine.expressions.depot",
            "give the expression another name",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_where_and_what_is_allowed(changes: dict[str, Any], path: str, words: str) -> None:
    error = refused(changes)
    assert ".".join(map(str, error.path)) == path
    assert words in error.message
