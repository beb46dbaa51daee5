from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.matrix import FeatureSchema, categorical_matrix, numeric_matrix, to_exact_frame, to_frame, with_origins

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


def origin_of(column: pa.Array) -> float:
    table = pa.table({"x": column})
    return with_origins(FeatureSchema(("x",), ()), table).origins.get("x", 0.0)


def model_values(column: pa.Array) -> np.ndarray:
    """The column as a model reads it whose training rows these are."""
    table = pa.table({"x": column})
    schema = with_origins(FeatureSchema(("x",), ()), table)
    return to_frame(table, schema)["x"].to_numpy()


EPOCH = 1_700_000_000 + np.random.default_rng(0).integers(0, 1000, 600)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(EPOCH),
        pa.array(EPOCH.astype(np.float64)),
        pa.array(-EPOCH),
        pa.array([Decimal(int(value)) / 100 for value in EPOCH]),
        pa.array(1000 + np.random.default_rng(0).random(600) / 1e4),
        pa.array([16_777_217, 16_777_216, None]),
        pa.array([2**53 - 1, 2**53 - 2]),
    ],
    ids=["epoch seconds", "in double", "negative", "cents", "far from 0", "two neighbours", "very large"],
)
def test_different_values_stay_different(column: pa.Array) -> None:
    assert origin_of(column) != 0
    known = column.drop_null()
    read = model_values(known)
    assert read.dtype == np.float32
    assert len(np.unique(read)) == len(known.unique())
    # In their order, and by their differences.
    values = known.cast(pa.float64()).to_numpy()
    np.testing.assert_allclose(np.diff(read.astype(np.float64)), np.diff(values), atol=1e-6 * np.ptp(values))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 1, 16_777_216]),
        pa.array([2013.0, 2014.0]),
        pa.array([0.1, 5e9, -3.25]),
        pa.array([2**30, 2**31]),
        pa.array([True, None]),
        pa.array([None, float("nan"), float("inf")], pa.float64()),
    ],
)
def test_what_float32_holds_needs_no_origin(column: pa.Array) -> None:
    assert origin_of(column) == 0


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_000_000_001, 2_000_000_002, 3_000_000_003]),
        pa.array([1_000_000_001.0, 2_000_000_002.0]),
        pa.array([2**60, 2**60 + 1]),
        pa.array([Decimal("123456789.01"), Decimal("123456789.02"), Decimal("1.00")]),
    ],
    ids=["identifiers", "in double", "beyond float64", "decimals"],
)
def test_what_no_origin_keeps_apart_is_refused_with_the_remedy(column: pa.Array) -> None:
    with pytest.raises(ValueError, match=r"The feature x .* different ones would become .* Give the model a difference"):
        origin_of(column)


def test_the_exact_frame_is_not_rounded() -> None:
    table = pa.table({"x": EPOCH + 0.25, "y": pa.array(np.full(600, 0.1))})
    frame = to_exact_frame(table, FeatureSchema(("x", "y"), (), {"x": 1_700_000_000.0}))
    np.testing.assert_array_equal(frame["x"].to_numpy(), EPOCH + 0.25 - 1_700_000_000.0)
    assert frame["y"][0] == 0.1
