"""Which values count as the same online and offline."""

import math
from typing import Any

import pytest

from mlops_assets.features.parity import find_differences

NAN = float("nan")


def differing(online: Any, offline: Any) -> bool:
    return bool(find_differences([{"id": 1}], [{"f": online}], [{"f": offline}]))


@pytest.mark.parametrize("value", [None, 0, 1, True, 0.1, "", "x", NAN, float("inf")])
def test_a_value_equals_itself(value: Any) -> None:
    assert not differing(value, value)


def test_two_nans_are_equal() -> None:
    assert not differing(NAN, float("nan"))


@pytest.mark.parametrize(
    ("online", "offline"),
    [(0.1, math.nextafter(0.1, 1)), (None, 0.0), (NAN, None), (NAN, 1.0), (1, 1.0), (1, True), ("1", 1), ("", None), (0.5, 0.25)],
)
def test_another_value_or_type_differs(online: Any, offline: Any) -> None:
    assert differing(online, offline)
    assert differing(offline, online)


def test_a_difference_names_the_entity_and_the_feature() -> None:
    entities = [{"id": 1}, {"id": 2}]
    online = [{"a": 1, "b": 2}, {"a": 1, "b": 3}]
    [found] = find_differences(entities, online, [{"a": 1, "b": 2}, {"a": 1, "b": 2}])
    assert (found.entity, found.feature, found.online, found.offline) == ({"id": 2}, "b", 3, 2)
