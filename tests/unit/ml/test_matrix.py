from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.matrix import FeatureSchema, categorical_matrix, numeric_matrix, to_frame

TABLE = pa.table(
    {
        "code": pa.array(["b", None, "a"]).dictionary_encode(),
        "amount": pa.array([Decimal("1.50"), None, Decimal("2.25")]),
        "name": pa.array(["x", "", None]),
        "flag": pa.array([True, None, False]),
        "count": pa.array([1, 2, None], pa.int64()),
        "size": pa.array([1.5, float("nan"), None]),
        "when": pa.array([0, 1, 2], pa.timestamp("us")),
    }
)


def test_columns_are_sorted_into_numeric_and_categorical_in_the_given_order() -> None:
    schema = FeatureSchema.from_arrow(TABLE.schema, ["code", "size", "flag", "name", "amount", "count"])
    assert schema.numeric == ("size", "flag", "amount", "count")
    assert schema.categorical == ("code", "name")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["when"], "'when' has type timestamp"),
        (["sise"], "No such column: sise"),
        (["size", "size"], "Features given twice: size"),
    ],
)
def test_a_feature_that_cannot_be_read_is_named(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSchema.from_arrow(TABLE.schema, names)


def test_frame_has_float32_then_strings_and_missing_values_have_one_form() -> None:
    frame = to_frame(TABLE, FeatureSchema(numeric=("amount", "flag", "count", "size"), categorical=("code", "name")))
    assert list(frame.columns) == ["amount", "flag", "count", "size", "code", "name"]
    assert [str(kind) for kind in frame.dtypes] == ["float32"] * 4 + ["object"] * 2
    np.testing.assert_array_equal(
        frame.iloc[:, :4].to_numpy(), np.array([[1.5, 1, 1, 1.5], [np.nan, np.nan, 2, np.nan], [2.25, 0, np.nan, np.nan]])
    )
    assert frame[["code", "name"]].to_numpy().tolist() == [["b", "x"], ["", ""], ["a", ""]]


def test_a_table_without_the_column_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="no column 'absent'"):
        numeric_matrix(TABLE, ["absent"])


@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=5)), max_size=20), st.integers(0, 20))
def test_any_strings_in_any_chunks_come_back(values: list[str | None], cut: int) -> None:
    column = pa.chunked_array([pa.array(values[:cut], pa.string()), pa.array(values[cut:], pa.string())])
    assert categorical_matrix(pa.table({"c": column}), ["c"])[:, 0].tolist() == [value or "" for value in values]


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=20))
def test_any_numbers_come_back(values: list[float | None]) -> None:
    matrix = numeric_matrix(pa.table({"n": pa.array(values, pa.float64())}), ["n"])
    expected = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    np.testing.assert_array_equal(matrix[:, 0], expected)
