"""Shapley values by sampling: exact where they are known, and adding up always."""

from itertools import permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.contributions import explain_row


def numbers(table: pa.Table) -> np.ndarray:
    return np.column_stack([table.column(name).to_numpy() for name in table.column_names])


def interacting(table: pa.Table) -> np.ndarray:
    values = numbers(table)
    return values[:, 0] * values[:, 1] + 3 * values[:, 2]


def row(*values: float) -> pa.Table:
    return pa.table({name: [value] for name, value in zip("abc", values, strict=True)})


def by_name(explanation: Any) -> dict[str, float]:
    return {each.feature: each.contribution for each in explanation.contributions}


def test_a_linear_model_gives_weight_times_distance_from_the_background() -> None:
    weights = np.array([2.0, -1.0, 0.5])
    explanation = explain_row(lambda table: numbers(table) @ weights, row(4, 5, 6), row(1, 1, 1), orders=20, seed=0)
    assert by_name(explanation) == pytest.approx({"a": 6.0, "b": -4.0, "c": 2.5})
    assert all(each.standard_error == pytest.approx(0, abs=1e-12) for each in explanation.contributions)
    assert [each.feature for each in explanation.contributions] == ["a", "b", "c"]
    assert (explanation.prediction, explanation.base) == (6.0, 1.5)


def test_an_interaction_is_shared_as_over_all_orders() -> None:
    explained, background = row(2, 5, 1), row(1, 1, 0)
    exact = np.zeros(3)
    for order in permutations(range(3)):
        values = numbers(background)[0].copy()
        for feature in order:
            former = values[0] * values[1] + 3 * values[2]
            values[feature] = numbers(explained)[0][feature]
            exact[feature] += (values[0] * values[1] + 3 * values[2] - former) / 6
    explanation = explain_row(interacting, explained, background, orders=2000, seed=1)
    for number, name in enumerate("abc"):
        [found] = [each for each in explanation.contributions if each.feature == name]
        assert abs(found.contribution - exact[number]) <= 4 * found.standard_error + 1e-12


finite = st.floats(-100, 100)


@settings(max_examples=examples(40))
@given(st.tuples(finite, finite, finite), st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5), st.integers(1, 7))
def test_contributions_add_up(explained: tuple, background: list, orders: int) -> None:
    table = pa.table({name: [each[number] for each in background] for number, name in enumerate("abc")})
    explanation = explain_row(interacting, row(*explained), table, orders=orders, seed=3)
    total = sum(each.contribution for each in explanation.contributions)
    assert explanation.base + total == pytest.approx(explanation.prediction, abs=1e-6)


def test_categories_and_missing_values_are_features_like_any_other() -> None:
    explained = pa.table({"carrier": pa.array(["UA"]), "delay": pa.array([None], pa.float64())})
    background = pa.table({"carrier": pa.array(["AA", "DL"]), "delay": pa.array([1.0, 2.0])})

    def predict(table: pa.Table) -> np.ndarray:
        united = np.array([carrier == "UA" for carrier in table.column("carrier").to_pylist()])
        missing = np.array([delay is None for delay in table.column("delay").to_pylist()])
        return 0.5 * united + 0.25 * missing

    explanation = explain_row(predict, explained, background, orders=10, seed=0)
    assert by_name(explanation) == pytest.approx({"carrier": 0.5, "delay": 0.25})
    assert [each.value for each in explanation.contributions] == ["UA", None]


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(ValueError, match="takes one row and some background, not 2 and 1 rows"):
        explain_row(interacting, pa.concat_tables([row(1, 2, 3)] * 2), row(1, 1, 1), orders=2, seed=0)
    with pytest.raises(ValueError, match="not 1 and 0 rows"):
        explain_row(interacting, row(1, 2, 3), row(1, 1, 1).slice(0, 0), orders=2, seed=0)
