"""The parity sample of a bundle: what it compares, and what counts as another answer."""

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.serving.sample import Sample, SampleRow

ROWS = (
    SampleRow(request={"id": 1, "c": "x"}, features=(1.5, None, "x"), answer=(0.25, 0.75)),
    SampleRow(request={"id": 2, "c": None}, features=(None, 2.0, None), answer=(1000.0, 0.5)),
)
SAMPLE = Sample(maximum_difference=1e-4, rows=ROWS)
ANSWERS = np.array([row.answer for row in ROWS])


def test_a_sample_comes_back_from_its_file() -> None:
    assert Sample.model_validate_json(SAMPLE.to_bytes()) == SAMPLE


@settings(max_examples=examples(20))
@given(st.floats(0, 1), st.floats(0, 1))
def test_large_answers_may_differ_by_their_share_and_small_ones_by_a_number(small: float, large: float) -> None:
    changed = ANSWERS + np.array([[small, 0], [large, 0]])
    assert SAMPLE.difference(changed) == pytest.approx(max(small, large / 1000), abs=1e-9)


@pytest.mark.parametrize("answers", [ANSWERS[:1], ANSWERS[:, :1], np.full((2, 2), np.nan), np.full((2, 2), np.inf)])
def test_answers_of_another_shape_or_that_are_no_numbers_are_as_far_as_can_be(answers: np.ndarray) -> None:
    assert SAMPLE.difference(answers) > 1e300


def test_features_are_read_as_the_model_reads_them() -> None:
    numeric, categorical = SAMPLE.matrices(FeatureSchema(numeric=("a", "b"), categorical=("c",), origins={"b": 1.0}))
    assert numeric.dtype == np.float32
    assert np.array_equal(numeric, np.array([[1.5, np.nan], [np.nan, 1.0]], dtype=np.float32), equal_nan=True)
    assert categorical.tolist() == [["x"], [""]]
    only_text = Sample(maximum_difference=0, rows=(SampleRow(request={}, features=("x",), answer=(1.0,)),))
    numeric, categorical = only_text.matrices(FeatureSchema(numeric=(), categorical=("c",)))
    assert (numeric.shape, categorical.shape) == ((1, 0), (1, 1))


@pytest.mark.parametrize("fields", [{"rows": ()}, {"maximum_difference": -1}, {"more": 1}])
def test_what_is_no_sample_is_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        Sample(**{"maximum_difference": 0, "rows": ROWS, **fields})
