import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import ValidationError
from prediction_records import prediction_record

from mlops_assets.serving.prediction_record import Outputs, build_prediction_id, decode_record, encode_record

VALUES = st.dictionaries(
    st.text(max_size=8),
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
)


@given(features=VALUES, entity=VALUES, score=st.floats(0, 1, width=32), key=st.text() | st.integers(0, 2**63 - 1) | st.none())
def test_a_record_comes_back_as_it_was(features: dict, entity: dict, score: float, key: str | int | None) -> None:
    record = prediction_record(1, features=features, entity=entity, outputs=Outputs(score=score, predicted_label="late"), key=key)
    line = encode_record(record)
    assert decode_record(line) == record
    assert b"\n" not in line


def test_a_missing_number_is_null() -> None:
    record = prediction_record(1, features={"delay": math.nan})
    assert json.loads(encode_record(record))["features"] == {"delay": None}


def test_a_record_of_another_shape_names_the_field() -> None:
    fields = json.loads(encode_record(prediction_record(1)))
    with pytest.raises(ValidationError, match="model_version"):
        decode_record(json.dumps(fields | {"model_version": "three"}).encode())


def test_one_request_has_one_prediction_a_role() -> None:
    answer = build_prediction_id(solution="late", channel="online", request_id="a", role="champion")
    shadow = build_prediction_id(solution="late", channel="online", request_id="a", role="challenger")
    assert answer != shadow
    assert answer.partition(":")[0] == shadow.partition(":")[0] == "late"
