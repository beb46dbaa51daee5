"""Changes of a relation: how many rows follow the other rule on which day, and what their labels become."""

import numpy as np
import pytest

from mlops_assets.ml.changed_relation import ChangeKind, change_labels, changed_share

AGES = np.array([-1, 0, 27, 28, 55, 56, 111, 112])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("abrupt", [0, 1, 1, 1, 1, 1, 1, 0]),
        ("gradual", [0, 1 / 112, 28 / 112, 29 / 112, 56 / 112, 57 / 112, 1, 0]),
        ("recurring", [0, 1, 1, 0, 0, 1, 0, 0]),
        ("seasonal", [0, 0, 0.473, 0.5, 0.999, 1, 0.001, 0]),
    ],
)
def test_shares_by_day(kind: ChangeKind, expected: list[float]) -> None:
    assert changed_share(kind, AGES, 112) == pytest.approx(expected, abs=2e-3)


def test_labels_of_the_other_rule() -> None:
    shares = np.array([0.0, 1.0, 1.0])
    assert change_labels("binary_classification", np.array([0, 0, 1]), shares).tolist() == [0, 1, 0]
    assert change_labels("multiclass_classification", np.array([0, 1, 2]), shares, classes=3).tolist() == [0, 2, 0]
    assert change_labels("regression", np.array([0.0, 1.0, 5.0]), shares).tolist() == [0.0, 1.0, -3.0]
