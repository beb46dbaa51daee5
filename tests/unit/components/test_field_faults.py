"""Wrong fields are all found, and what is left of the attributes can still be checked."""

from typing import Any

import pytest

from mlops_assets.components.field_faults import Fields, allowed_fields
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source

ATTRIBUTES: dict[str, Any] = {
    "name": "parcels",
    "description": "Late parcels.",
    "owners": ["team:logistics"],
    "problem": "binary_classification",
    "partitions": {"column": "day", "start": "2024-01-01"},
    "spine": {"model": "parcels", "key": "id", "prediction_time": "sent_at", "label": "is_late", "label_time": "delivered_at"},
    "features": [{"request": ["weight"]}, {"view": "history"}],
    "training": {"window": "60d", "holdout": "14d", "metric": "roc_auc", "estimator": {"type": "my.Estimator"}},
}


def faults(fields: Fields) -> dict[str, str]:
    return {".".join(map(str, fault.path)): fault.message for fault in fields.faults}


def test_every_wrong_field_is_found_and_what_is_left_is_read() -> None:
    values = {
        **ATTRIBUTES,
        "owners": ["logistics", "team:logistics"],
        "problem": "binary_clasification",
        "gats": {"slices": ["weight"], "floors": {"roc_auc": 0.5}},
        "serving": {"canary": 3},
        "monitoring": {"window": "hourly"},
    }
    fields = Fields(values, Solution)
    found = faults(fields)
    assert found["owners.0"] == "'logistics' is no owner; write team:logistics, or an e-mail address"
    assert "did you mean 'binary_classification'" in found["problem"]
    assert "did you mean gates" in found["gats"]
    assert found["serving.canary"] == "Input should be less than or equal to 1"
    assert "'hourly' is no value of it" in found["monitoring.window"]
    # What is inside a misspelled section is read, too.
    assert found["gats.floors"] == "unknown field; did you mean floor?"
    assert isinstance(fields.attributes, Solution)
    assert fields.attributes.owners == ["team:logistics", "team:logistics"]
    assert fields.attributes.problem == "binary_classification"


def test_what_is_missing_leaves_nothing_to_check() -> None:
    fields = Fields({name: value for name, value in ATTRIBUTES.items() if name != "spine"}, Solution)
    assert faults(fields) == {"spine": "this field is required"}
    assert fields.attributes is None


def test_positions_are_those_of_the_file_when_an_entry_was_left_out() -> None:
    entries = [{"view": "history", "request": ["weight"]}, {"view": "other"}, {"view": "history", "verson": 1}]
    fields = Fields({**ATTRIBUTES, "features": entries}, Solution)
    assert set(faults(fields)) == {"features.0", "features.2.verson"}
    assert fields.attributes is not None
    assert fields.path_in_file(("features", 0, "view")) == ("features", 1, "view")
    assert fields.path_in_file(("features", 1)) == ("features", 2)


def test_one_fault_is_told_once() -> None:
    partitions = {"column": "day", "start": "2024-01-01", "end": "2023-01-01", "time_zone": "Berlin"}
    assert set(faults(Fields({**ATTRIBUTES, "partitions": partitions}, Solution))) == {"partitions.time_zone"}


@pytest.mark.parametrize(
    ("location", "field"),
    [(("tables", "columns", "descripton"), "description"), (("tables", "orders", "columns", "key", "typ"), "accepted")],
)
def test_fields_are_those_of_the_mapping_that_holds_them(location: tuple[str, ...], field: str) -> None:
    """A table or a column may be called like a field."""
    assert field in allowed_fields(Source, location)
