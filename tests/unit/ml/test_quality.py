import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.quality import (
    Failure,
    frame_schema,
    validate_frame,
)

SCHEMA = FeatureSchema(numeric=("age", "size"), categorical=("color",))
TABLE = pa.table(
    {
        "age": [30.0, None, 200.0, 150.0],
        "size": [1.0, np.inf, 2.0, np.nan],
        "color": ["red", "green", None, "red"],
        "id": [1, 2, 2, 2],
    }
)


def test_failures_name_column_check_count_and_examples() -> None:
    schema = frame_schema(SCHEMA, {"age": (0, 120)}, {"color": ["red"]})
    assert validate_frame(to_frame(TABLE, SCHEMA), schema) == (
        Failure("age", "less_than_or_equal_to(120)", 2, ("200.0", "150.0")),
        Failure("color", "isin(['', 'red'])", 1, ("green",)),
        Failure("size", "finite", 1, ("inf",)),
    )


def test_a_valid_frame_has_no_failure_and_a_wrong_one_has() -> None:
    frame = to_frame(TABLE.slice(0, 1), SCHEMA)
    schema = frame_schema(SCHEMA, {}, {})
    assert validate_frame(frame, schema) == ()
    assert [failure.check for failure in validate_frame(frame.astype({"age": "float64"}), schema)] == ["dtype('float32')"]
    assert validate_frame(frame.drop(columns="size"), schema)[0].examples == ("size",)
    assert [failure.column for failure in validate_frame(frame.assign(color=np.array([7], dtype=object)), schema)] == ["color"]
    assert validate_frame(frame[["size", "age", "color"]], schema)


def test_a_range_of_no_feature_is_an_error() -> None:
    with pytest.raises(ValueError, match="No numeric feature color: there are age, size"):
        frame_schema(SCHEMA, {"color": (0, 1)}, {})
