"""Types of request columns: what JSON values they take, at their bounds and beyond."""

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.serving.columns import Identifier, UnknownTypeError, check_column, feature_type, json_type, type_family

BOUNDS = {
    "tinyint": (-(2**7), 2**7 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "int8": (-(2**63), 2**63 - 1),
    "UBIGINT": (0, 2**63 - 1),
}


def takes(kind: Any, value: object) -> bool:
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=kind) == value
    except msgspec.ValidationError:
        return False


@pytest.mark.parametrize("sql_type", BOUNDS)
def test_whole_numbers_are_taken_up_to_their_bounds(sql_type: str) -> None:
    least, most = BOUNDS[sql_type]
    kind = json_type(sql_type)
    assert takes(kind, least)
    assert takes(kind, most)
    assert not takes(kind, most + 1)
    assert not takes(kind, least - 1)
    for other in ("1", 1.5, True, None, [1]):
        assert not takes(kind, other)


@settings(max_examples=examples(20))
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70))
def test_a_number_is_one_that_a_float32_holds(value: float) -> None:
    expected = abs(value) <= 3.4028234663852886e38
    for kind in (json_type("DECIMAL(9, 2)"), feature_type("double"), feature_type("int64")):
        assert takes(kind, float(value)) is expected


@pytest.mark.parametrize(
    ("text", "taken"), [("", True), ("ü\n", True), ("a\0b", False), ("x" * 10_000, True), ("x" * 10_001, False)]
)
def test_a_text_is_bounded_and_without_nul(text: str, taken: bool) -> None:
    assert takes(json_type("VARCHAR(20)"), text) is taken
    assert takes(feature_type("large_string"), text) is taken


@pytest.mark.parametrize("text", ["a", "a b", "ü" * 200])
def test_identifiers_are_taken(text: str) -> None:
    assert takes(Identifier, text)


@pytest.mark.parametrize("text", ["", "a\n", "a\r\nSet-Cookie: x", "\x7f", "\x00", "x" * 201])
def test_what_would_break_a_header_or_a_log_is_no_identifier(text: str) -> None:
    assert not takes(Identifier, text)


def test_moments_have_an_offset() -> None:
    assert takes(json_type("timestamptz"), datetime(2024, 1, 1, tzinfo=UTC))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'"2024-01-01T00:00:00"', type=json_type("timestamp"))
    assert takes(json_type("date"), date(2024, 1, 1))


@pytest.mark.parametrize("sql_type", ["BLOB", "STRUCT(a INTEGER)", "INTEGER[]", "", "HUGEINT", "INTERVAL"])
def test_a_type_without_json_is_refused_with_those_that_have_one(sql_type: str) -> None:
    with pytest.raises(UnknownTypeError, match="use one of BIGINT, BOOLEAN"):
        json_type(sql_type)
    with pytest.raises(UnknownTypeError):
        check_column("a", sql_type)


@pytest.mark.parametrize("name", ["request_id", "FEATURES"])
def test_a_column_with_the_name_of_a_field_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="rename the column"):
        check_column(name, "varchar")


def test_types_of_one_family_compare_as_they_look() -> None:
    assert type_family("int4") == type_family("BIGINT") == type_family("HUGEINT") == "whole number"
    assert type_family("decimal(9,2)") == type_family("real") == "number"
    assert type_family("TIMESTAMPTZ") != type_family("TIMESTAMP")
    assert type_family("uuid") != type_family("varchar")
