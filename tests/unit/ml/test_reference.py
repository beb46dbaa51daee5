"""The summary of a hold-out: complete, the same whatever the order of its rows, and small whatever its values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.reference import (
    MAXIMUM_CATEGORIES,
    MINIMUM_SLICE_ROWS,
    OTHER_CATEGORY,
    WHOLE,
    MonitoredColumn,
    row_slices,
    slice_name,
    summarise,
)

NUMBER, TEXT = MonitoredColumn("number", "feature", numeric=True), MonitoredColumn("text", "feature", numeric=False)
NUMBERS = st.none() | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.5, 1e300]) | st.floats(-1e6, 1e6)


def table(numbers: list[float | None], texts: list[str | None]) -> pa.Table:
    return pa.table({"number": pa.array(numbers, pa.float64()), "text": pa.array(texts, pa.string())})


@pytest.mark.parametrize("numbers", [[1e300], [1e17] * 3, [1e17, np.nextafter(1e17, 2e17)] * 50])
def test_values_that_no_two_bins_can_part_have_one(numbers: list[float]) -> None:
    reference = summarise(table(numbers, ["a"] * len(numbers)), [NUMBER, TEXT], [])
    described = next(each for each in reference.columns.to_pylist() if each["feature"] == "number")
    assert (described["bins"], described["rows"]) == (1, len(numbers))
    assert described["low"] < numbers[0] <= numbers[-1] < described["high"]


@settings(max_examples=40)
@given(st.lists(st.tuples(NUMBERS, st.none() | st.sampled_from(["", "a", "b", OTHER_CATEGORY])), max_size=60), st.randoms())
def test_every_row_with_a_value_is_in_one_bin_of_each_binning_in_any_order(rows: list[tuple], random: object) -> None:
    numbers, texts = [row[0] for row in rows], [row[1] for row in rows]
    whole = table(numbers, texts)
    reference = summarise(whole, [NUMBER, TEXT], [])
    described = {each["feature"]: each for each in reference.columns.to_pylist()}
    finite = [value for value in numbers if value is not None and np.isfinite(value)]
    assert described["number"]["rows"] == len(finite)
    assert described["number"]["missing"] == sum(value is None or np.isnan(value) for value in numbers)
    assert described["text"]["rows"] == sum(value is not None for value in texts)
    for feature, binning in (("number", "equal_width"), ("number", "decile"), ("number", "wasserstein"), ("text", "category")):
        masses = [
            each["rows"] for each in reference.masses.to_pylist() if (each["feature"], each["binning"]) == (feature, binning)
        ]
        assert sum(masses) == described[feature]["rows"]
        assert all(count > 0 for count in masses)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = summarise(whole.take(pa.array(order, pa.int64())), [NUMBER, TEXT], [])
    assert shuffled.columns.equals(reference.columns)
    assert shuffled.masses.equals(reference.masses)


def test_slices_are_the_values_with_enough_rows() -> None:
    few = MINIMUM_SLICE_ROWS - 1
    texts = ["b"] * MINIMUM_SLICE_ROWS + ["a"] * (MINIMUM_SLICE_ROWS + 1) + ["few"] * few + [None] * 500
    whole = table([1.0] * len(texts), texts)
    slices = row_slices(whole, ["text"])
    assert {name: rows.num_rows for name, rows in slices.items()} == {
        WHOLE: len(texts),
        slice_name("text", "a"): MINIMUM_SLICE_ROWS + 1,
        slice_name("text", "b"): MINIMUM_SLICE_ROWS,
    }
    assert pc.unique(slices[slice_name("text", "a")]["text"]).to_pylist() == ["a"]


def test_many_categories_become_few_and_none_is_lost() -> None:
    random = np.random.default_rng(0)
    frequent = ["often"] * 3000 + ["too"] * 500
    rare = [f"rare {number}" for number in random.integers(0, 2000, 1500)]
    reference = summarise(table([1.0] * 5000, frequent + rare), [TEXT], [])
    masses = {each["bin"]: each["rows"] for each in reference.masses.to_pylist()}
    assert masses == {"often": 3000, "too": 500, OTHER_CATEGORY: 1500}
    assert reference.columns.to_pylist()[0]["collapsed"]
    as_many_as_allowed = [f"c{number}" for number in range(MAXIMUM_CATEGORIES)]
    assert not summarise(table([1.0] * MAXIMUM_CATEGORIES, as_many_as_allowed), [TEXT], []).columns.to_pylist()[0]["collapsed"]


@pytest.mark.parametrize("numbers", [[], [None], [float("nan"), float("inf")], [7.0] * 12_000])
def test_columns_without_spread_or_without_values_are_summarised(numbers: list[float | None]) -> None:
    reference = summarise(table(numbers, ["a"] * len(numbers)), [NUMBER], [])
    [described] = reference.columns.to_pylist()
    assert described["rows"] == sum(value == 7.0 for value in numbers)


def test_large_hold_outs_are_kept_in_bins() -> None:
    numbers = np.random.default_rng(1).normal(size=20_000)
    reference = summarise(table(numbers.tolist(), ["a"] * 20_000), [NUMBER], [])
    kept = reference.masses.filter(pc.equal(reference.masses["binning"], "wasserstein"))
    assert kept.num_rows <= 10_000
    assert pc.sum(kept["rows"]).as_py() == 20_000
