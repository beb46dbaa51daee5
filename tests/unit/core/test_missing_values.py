"""Missing and infinite values: the SQL beside what numpy and a model of float32 make of the same numbers."""

import math

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_assets.core.missing_values import LARGEST_FLOAT32, finite_value, is_infinite, is_present, numeric_value

CONNECTION = duckdb.connect()


def evaluate(value: object, kind: str) -> tuple[float | None, float | None, bool, bool]:
    columns = f"{numeric_value('x')}, {finite_value('x')}, {is_infinite('x')}, {is_present('x', numeric=True)}"
    [row] = CONNECTION.execute(f"SELECT {columns} FROM (SELECT CAST(? AS {kind}) AS x)", [value]).fetchall()
    return row


@settings(max_examples=50)
@given(st.none() | st.floats())
@example(LARGEST_FLOAT32)
@example(-math.nextafter(LARGEST_FLOAT32, math.inf))
@example(-0.0)
@example(5e-324)
def test_a_double_is_missing_infinite_or_a_number_that_a_model_reads(value: float | None) -> None:
    as_number, finite, infinite, present = evaluate(value, "DOUBLE")
    assert present is (value is not None and not math.isnan(value))
    assert as_number == (value if present else None)
    assert (finite is not None) is (present and not infinite)
    if finite is not None:
        assert finite == value
        assert np.isfinite(np.float32(finite))
    if infinite and value is not None:
        assert abs(value) > LARGEST_FLOAT32 == float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, "BOOLEAN", 1.0),
        (False, "BOOLEAN", 0.0),
        (2**63 - 1, "BIGINT", 9223372036854775807.0),
        ("12345678901234567890.12", "DECIMAL(38,2)", 12345678901234567890.12),
        ("nan", "FLOAT", None),
        (None, "BOOLEAN", None),
    ],
)
def test_all_types_of_numbers_are_read(value: object, kind: str, expected: float | None) -> None:
    assert evaluate(value, kind)[0] == expected


def test_a_text_is_missing_only_when_it_is_null() -> None:
    for text, present in (("nan", True), ("", True), ("inf", True), (None, False)):
        [(answer,)] = CONNECTION.execute(
            f"SELECT {is_present('x', numeric=False)} FROM (SELECT ?::VARCHAR AS x)", [text]
        ).fetchall()
        assert answer is present
