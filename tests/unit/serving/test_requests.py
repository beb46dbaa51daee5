"""What a caller may ask: every error names the field, what is wrong and what is allowed; nothing else escapes."""

import json
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from bundles import NOON, contract
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.serving.columns import UnknownTypeError, json_type
from mlops_assets.serving.requests import RequestDecoder, RequestError, Row

CONTRACT = contract(
    name="flights",
    features=[
        {"name": "distance", "type": "int32", "minimum": 80, "maximum": 4983},
        {"name": "is_far", "type": "bool", "minimum": 0, "maximum": 1},
        {"name": "mean_delay", "type": "double", "minimum": -20, "maximum": 60},
        {"name": "wind speed", "type": "double", "minimum": 0, "maximum": 50},
        {"name": "carrier", "kind": "categorical", "type": "string", "categories": ["AA", "UA"]},
    ],
    key={"name": "flight_id", "type": "varchar"},
    entity_keys=[{"name": "tailnum", "type": "varchar"}, {"name": "carrier", "type": "varchar"}],
    partition_column="flight_date",
    time_zone="America/New_York",
    feature_views=[
        {"name": "planes", "version": 1, "entity": ["tailnum"], "features": ["mean_delay"], "online": True},
        {"name": "gusts", "version": 1, "entity": ["carrier"], "features": ["wind speed"], "online": False},
    ],
    request_columns=[{"name": "carrier", "type": "varchar"}, {"name": "distance", "type": "integer"}],
    derived_features=[{"name": "is_far", "expression": "distance > 1000"}],
)
DECODER = RequestDecoder(CONTRACT)
ROW = {"flight_id": "f1", "tailnum": "N1", "carrier": "AA", "distance": 500, "features": {"wind speed": 3}}


def decode(row: Any) -> Any:
    return DECODER.decode(json.dumps(row).encode(), NOON)


def refused(row: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        decode(row)
    return error.value


def test_a_row_is_a_row_of_the_spine() -> None:
    assert decode(ROW) == Row(
        request_id=None,
        key="f1",
        partition=date(2020, 1, 10),
        prediction_time=NOON,
        columns={"tailnum": "N1", "carrier": "AA", "distance": 500},
        features={"wind speed": 3.0},
    )


def test_what_a_caller_may_say_besides() -> None:
    row = decode(ROW | {"request_id": "r-1", "predicted_at": "2020-01-10T03:30:00+01:00", "distance": None, "tailnum": None})
    # In New York it is still the evening before.
    assert (row.request_id, row.partition) == ("r-1", date(2020, 1, 9))
    assert row.prediction_time == datetime(2020, 1, 10, 2, 30, tzinfo=UTC)
    assert (row.columns["distance"], row.columns["tailnum"]) == (None, None)
    given_by_hand = decode(ROW | {"flight_date": "2020-02-01", "features": {"wind speed": None, "is_far": True}})
    assert given_by_hand.partition == date(2020, 2, 1)
    assert given_by_hand.features == {"wind speed": None, "is_far": True}


def test_an_array_of_rows() -> None:
    assert [row.key for row in decode([ROW, ROW | {"flight_id": "f2"}])] == ["f1", "f2"]
    assert DECODER.decode_row(json.dumps(ROW).encode(), NOON).key == "f1"
    assert [row.request_id for row in decode([ROW | {"request_id": "a"}, ROW, ROW, ROW | {"request_id": "b"}])] == [
        "a",
        None,
        None,
        "b",
    ]
    assert str(refused([ROW, ROW | {"request_id": "a"}, ROW | {"request_id": "a"}])).startswith(
        "row 2.request_id: is that of another"
    )
    with pytest.raises(RequestError, match="Expected object, got array"):
        DECODER.decode_row(json.dumps([ROW]).encode(), NOON)


def test_an_entity_key_may_be_left_out_when_nothing_is_looked_up_with_it() -> None:
    without = {name: value for name, value in ROW.items() if name != "tailnum"}
    assert decode(without | {"features": {"wind speed": 3, "mean_delay": 1}}).columns["tailnum"] is None
    assert str(refused(without)) == (
        "tailnum: is missing, with which mean_delay would be looked up; allowed: a string without NUL or null"
    )


@pytest.mark.parametrize(
    ("change", "field", "problem", "allowed"),
    [
        (
            {"distance": "far"},
            "distance",
            "Expected int | null, got str",
            "a whole number from -2147483648 to 2147483647 or null",
        ),
        ({"distance": 2**40}, "distance", "Expected int <= 2147483647", "a whole number from -2147483648 to 2147483647 or null"),
        ({"distance": 1.5}, "distance", "Expected int | null, got float", "a whole number from -2147483648"),
        ({"carrier": "A\0"}, "carrier", "matching regex", "a string without NUL or null"),
        ({"flight_id": None}, "flight_id", "Expected str, got null", "a string without control characters"),
        ({"flight_id": "f1\n"}, "flight_id", "matching regex", "a string without control characters"),
        ({"flight_id": ""}, "flight_id", "of length >= 1", "a string without control characters"),
        ({"request_id": "x" * 201}, "request_id", "of length <= 200", "a string without control characters or null"),
        ({"predicted_at": "2020-01-10T03:30:00"}, "predicted_at", "with a timezone", "a time with its offset from UTC"),
        ({"predicted_at": "0001-01-01T00:00:00+14:00"}, "predicted_at", "is before the year 1", "a time with its offset"),
        ({"predicted_at": "9999-12-31T23:59:59-10:00"}, "predicted_at", "after 9999", "a time with its offset"),
        ({"flight_date": "2020-02-31"}, "flight_date", "Invalid RFC3339 encoded date", "a date, such as"),
        ({"tailnumber": "N1"}, "tailnumber", "is no field; did you mean tailnum?", "tailnum"),
        ({"features": {"wind speed": "strong"}}, "features.wind speed", "Expected float | null, got str", "a number or null"),
        ({"features": {"wind speed": 1e300}}, "features.wind speed", "Expected float <= 3.4", "a number or null"),
        (
            {"features": {"wind speed": 1, "mean": 2}},
            "features.mean",
            "is no field; did you mean mean_delay?",
            "is_far, mean_delay, wind speed",
        ),
        (
            {"features": {"wind speed": 1, "distance": 2}},
            "features.distance",
            "is no field",
            "is_far, mean_delay, wind speed",
        ),
        ({"features": {}}, "features.wind speed", "the feature view gusts is not in the online store", "a number or null"),
        ({"features": None}, "features", "Expected object, got null", "a JSON object"),
    ],
)
def test_an_error_names_field_problem_and_remedy(change: dict[str, Any], field: str, problem: str, allowed: str) -> None:
    error = refused(ROW | change)
    assert (error.row, error.field) == (None, field)
    assert problem in error.problem
    assert allowed in error.allowed
    in_array = refused([ROW, ROW | change])
    assert (in_array.row, in_array.field, in_array.problem) == (1, field, error.problem)
    assert str(in_array).startswith(f"row 1.{field}: ")


@pytest.mark.parametrize("name", ["flight_id", "carrier", "distance"])
def test_what_is_missing_is_named(name: str) -> None:
    error = refused({field: value for field, value in ROW.items() if field != name})
    assert (error.field, error.problem) == (name, "is missing")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"flight_id": "\xff"}', b'{"flight_id": "\\ud800"}', b'{"distance": NaN}'],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="not JSON in UTF-8") as error:
        DECODER.decode(body, NOON)
    assert error.value.allowed == "a JSON object, or an array of 1 to 1000 of them"


def test_the_number_of_rows_and_the_depth_are_limited() -> None:
    assert refused(json.loads("[" * 500 + "]" * 500)).problem == "Expected object, got array"
    assert refused([]).problem == "Expected array of length >= 1"
    assert refused([ROW] * 1001).problem == "Expected array of length <= 1000"
    assert len(decode([ROW] * 1000)) == 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
HOSTILE_ROWS = st.fixed_dictionaries(
    {}, optional={name: st.just(value) | JSON for name, value in (ROW | {"predicted_at": None, "request_id": "r"}).items()}
)


@given(
    body=st.binary(max_size=60)
    | (HOSTILE_ROWS | st.lists(HOSTILE_ROWS, max_size=3) | JSON).map(lambda row: json.dumps(row).encode())
)
def test_any_body_is_rows_or_a_request_error(body: bytes) -> None:
    try:
        rows = DECODER.decode(body, NOON)
    except RequestError:
        return
    for row in rows if isinstance(rows, list) else [rows]:
        assert row.prediction_time.tzinfo is UTC
        assert set(row.columns) == {"tailnum", "carrier", "distance"}


@pytest.mark.parametrize(
    ("sql_type", "accepted", "refused_value"),
    [
        ("bigint", 2**63 - 1, 2**63),
        ("utinyint", 255, -1),
        ("decimal(9, 2)", 1.25, "1.25"),
        ("boolean", True, 1),
        ("date", "2020-01-10", "10.1.2020"),
        ("timestamp with time zone", "2020-01-10T00:00:00Z", "2020-01-10"),
        ("varchar(3)", "abc", 3),
    ],
)
def test_sql_types(sql_type: str, accepted: Any, refused_value: Any) -> None:
    decoder = msgspec.json.Decoder(json_type(sql_type))
    decoder.decode(json.dumps(accepted).encode())
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(json.dumps(refused_value).encode())


def test_a_type_without_a_form_in_json_is_refused() -> None:
    with pytest.raises(UnknownTypeError, match=r"'integer\[\]' is no type that a request can give; use one of BIGINT"):
        json_type("integer[]")


def test_the_key_may_be_an_entity_key_and_a_number() -> None:
    decoder = RequestDecoder(
        contract(
            key={"name": "person", "type": "bigint"},
            entity_keys=[{"name": "person", "type": "bigint"}],
            feature_views=[{"name": "v", "version": 1, "entity": ["person"], "features": ["a"], "online": True}],
        )
    )
    row = decoder.decode(b'{"person": 7}', NOON)
    assert isinstance(row, Row)
    assert (row.key, row.columns) == (7, {"person": 7})
