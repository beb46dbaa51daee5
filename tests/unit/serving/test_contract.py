"""Contracts: what describes no model is refused, and what does comes back from its file."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bundles import contract
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.serving.contract import Contract, Segment, describe_features

NUMERIC = {"name": "a", "type": "double", "minimum": 0, "maximum": 1}
CATEGORICAL = {"name": "c", "kind": "categorical", "type": "string", "categories": ["x"]}


def test_a_contract_comes_back_from_its_file() -> None:
    written = contract(features=[NUMERIC, CATEGORICAL], origins={"a": 1e9}, segment={"column": "c", "value": "x"})
    assert Contract.model_validate_json(written.model_dump_json()) == written
    assert written.feature_schema == FeatureSchema(numeric=("a",), categorical=("c",), origins={"a": 1e9})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": []}, "features"),
        ({"features": [CATEGORICAL, NUMERIC]}, "numeric ones before the categorical ones"),
        ({"features": [NUMERIC, NUMERIC]}, "must have different names"),
        ({"request_columns": [{"name": "b", "type": "varchar"}]}, "must be features: b"),
        ({"derived_features": [{"name": "b", "expression": "1"}]}, "must be features: b"),
        ({"origins": {"b": 1.0}}, "origins must be those of numeric features: b"),
        ({"key": {"name": "id", "type": "blob"}}, "is no type that a request can give"),
        ({"key": {"name": "request_id", "type": "varchar"}}, "rename the column"),
        ({"classes": [0, 1]}, "regression cannot have 2 classes"),
        ({"problem": "binary_classification", "classes": [0], "decision_threshold": 0.5}, "cannot have 1 classes"),
        ({"problem": "binary_classification", "classes": [0, 1]}, "decision_threshold belongs to binary_classification"),
        ({"decision_threshold": 0.5}, "decision_threshold belongs to binary_classification"),
        ({"problem": "multiclass_classification", "classes": ["a", "b"]}, "cannot have 2 classes"),
        ({"model_sha256": "ABC"}, "model_sha256"),
        ({"version": 0}, "version"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_describes_no_model_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        contract(**changes)


@pytest.mark.parametrize(
    ("row", "inside"),
    [({"c": "7"}, True), ({"c": 7}, True), ({"c": "8"}, False), ({"c": None}, False), ({}, False), ({"c": 7.0}, False)],
)
def test_a_segment_holds_the_rows_with_its_value(row: dict[str, Any], inside: bool) -> None:
    assert Segment(column="c", value="7").holds(row) is inside


def test_columns_of_a_caller_are_named_once() -> None:
    column = {"name": "a", "type": "double"}
    assert contract(entity_keys=[column], request_columns=[column]).columns == ("a",)


@settings(max_examples=examples(20))
@given(st.lists(st.none() | st.floats(), max_size=20), st.lists(st.none() | st.text(max_size=3), max_size=20))
def test_the_values_of_training_are_described(numbers: list[float | None], texts: list[str | None]) -> None:
    size = min(len(numbers), len(texts))
    table = pa.table({"a": pa.array(numbers[:size], pa.float64()), "c": pa.array(texts[:size], pa.string())})
    number, text = describe_features(table, FeatureSchema(numeric=("a",), categorical=("c",)))
    finite = [value for value in numbers[:size] if value is not None and np.isfinite(value)]
    assert (number.minimum, number.maximum) == ((min(finite), max(finite)) if finite else (None, None))  # type: ignore[union-attr]
    assert set(text.categories) == {value or "" for value in texts[:size]}  # type: ignore[union-attr]
    assert list(text.categories) == sorted(text.categories)  # type: ignore[union-attr]
