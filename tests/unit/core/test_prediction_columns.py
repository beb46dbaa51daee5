"""The numbers of scored rows, whatever way Arrow holds the rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.core.prediction_columns import PREDICTION_DESCRIPTIONS, prediction_columns, predictions_array
from mlops_assets.schema.column_names import OUTPUTS

ROWS = [[0.2, 0.3, 0.5], [0.9, 0.1, 0.0], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]]


@given(
    st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([pa.list_(pa.float64()), pa.list_(pa.float64(), 3)])
)
def test_probabilities_stay_with_their_rows_in_slices_and_chunks(first: int, length: int, chunk: int, kind: pa.DataType) -> None:
    whole = pa.table({"probabilities": pa.array(ROWS, kind), "predicted_label": ["a", "b", "c", "d"], "score": [0.5] * 4})
    chunked = pa.concat_tables([whole.slice(start, chunk) for start in range(0, 4, chunk)])
    assert predictions_array(chunked.slice(first, length)).tolist() == ROWS[first : first + length]


def test_a_binary_score_and_a_value_are_one_number_a_row() -> None:
    score = pa.table({"predicted_label": [1, 0], "score": [0.25, 0.75]})
    value = pa.table({"value": pa.chunked_array([[1.5], [-2.0]])})
    assert predictions_array(score).tolist() == [0.25, 0.75]
    assert predictions_array(value).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("column", ["score", "value"])
def test_no_rows_have_no_predictions(column: str) -> None:
    assert predictions_array(pa.table({column: pa.array([], pa.float64())})).shape == (0,)


def test_tables_keep_the_outputs_and_each_is_described() -> None:
    scored = pa.table({name: np.zeros(1) for name in ("id", *OUTPUTS, "feature")})
    assert set(prediction_columns(scored)) == set(OUTPUTS)
    assert set(OUTPUTS) <= set(PREDICTION_DESCRIPTIONS)
