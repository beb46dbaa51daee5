import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.schema.problem import check_problem, label_array


def test_labels_of_each_problem() -> None:
    np.testing.assert_array_equal(label_array(pa.array([True, False]), "binary_classification"), [1, 0])
    np.testing.assert_array_equal(label_array(pa.chunked_array([[0, 1], [1]]), "binary_classification"), [0, 1, 1])
    assert label_array(pa.array(["a", "b"]), "multiclass_classification").tolist() == ["a", "b"]
    assert label_array(pa.array(["a", "b"]).dictionary_encode(), "multiclass_classification").tolist() == ["a", "b"]
    assert label_array(pa.array([3, 5]), "multiclass_classification").dtype == np.int64
    assert label_array(pa.array([3, 5]), "regression").dtype == np.float64


@pytest.mark.parametrize(
    ("values", "problem", "message"),
    [
        ([1, None], "binary_classification", "1 labels are null"),
        ([1, 2], "binary_classification", r"0 or 1; found \[1, 2\]"),
        ([0.5], "multiclass_classification", "an integer or a string, not double"),
        (["1"], "regression", "a number, not string"),
        ([1], "ranking", "Unknown problem 'ranking'"),
    ],
)
def test_a_label_that_does_not_suit_the_problem(values: list, problem: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_array(pa.array(values), problem)  # type: ignore[arg-type]


def test_check_problem_lists_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="binary_classification, multiclass_classification, regression"):
        check_problem("classification")
