import warnings
from collections import Counter

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from census import CATEGORICAL, NUMERIC, census
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, wasserstein_distance

from mlops_assets.ml.drift import Distance
from mlops_assets.ml.reference import MonitoredColumn, summarise
from mlops_assets.training.drift_distances import measure_distances

WINDOW_ROWS = 2000
EVERY = [
    *(MonitoredColumn(name, "feature", True) for name in NUMERIC),
    *(MonitoredColumn(name, "feature", False) for name in CATEGORICAL),
]
NUMBERS = st.lists(st.floats(-1e3, 1e3).map(lambda value: round(value, 2)), min_size=2, max_size=40)
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "'", ""]), min_size=1, max_size=40)


def distances(
    reference: pa.Table, window: pa.Table, monitored: list[MonitoredColumn], slices: tuple[str, ...] = ()
) -> dict[tuple[str, str, str, str], Distance]:
    """By window, slice, column and method."""
    connection = duckdb.connect()
    rows = window if "_w" in window.column_names else window.append_column("_w", pa.array(["0"] * window.num_rows))
    connection.register("rows", rows)
    found = measure_distances(
        connection, rows="rows", window="_w", slices=slices, reference=summarise(reference, monitored, slices)
    )
    return {(each.window, each.slice, each.feature, each.method): each for each in found}


@pytest.mark.parametrize("reference_rows", [4000, 20_000])
def test_every_distance_is_that_of_nannyml_on_real_data(reference_rows: int) -> None:
    import nannyml

    reference, analysis = (
        census(name, rows).select([*NUMERIC, *CATEGORICAL]) for name, rows in (("reference", reference_rows), ("analysis", 4000))
    )
    # Ages beyond the reference's on both sides, and half years between its own.
    ages = analysis["AGEP"].to_numpy().copy()
    ages[::50] += 40
    ages[1::50] -= 40
    ages[2::5] += 0.5
    analysis = analysis.set_column(0, "AGEP", pa.array(ages))
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=[*NUMERIC, *CATEGORICAL],
        chunk_size=WINDOW_ROWS,
        continuous_methods=["jensen_shannon", "wasserstein"],
        categorical_methods=["jensen_shannon", "chi2"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = calculator.fit(reference.to_pandas()).calculate(analysis.to_pandas())
    expected = result.filter(period="analysis").data
    windows = pa.array([str(row // WINDOW_ROWS) for row in range(analysis.num_rows)])
    found = distances(reference, analysis.append_column("_w", windows), EVERY)
    compared = [each for each in found.values() if each.method != "population_stability_index"]
    assert len(compared) == 2 * 2 * len(EVERY)
    for each in compared:
        value = expected[(each.feature, each.method)]["value"].iloc[int(each.window)]
        assert each.value == pytest.approx(value, abs=1e-9, rel=1e-9), each


@settings(max_examples=examples(20))
@given(NUMBERS, NUMBERS, TEXTS, TEXTS)
def test_distances_are_those_of_scipy_and_of_the_definition(x: list[float], y: list[float], p: list[str], q: list[str]) -> None:
    monitored = [MonitoredColumn("number", "feature", True), MonitoredColumn("text", "feature", False)]
    size_p, size_q = max(len(x), len(p)), max(len(y), len(q))
    reference = pa.table({"number": x + [None] * (size_p - len(x)), "text": p + [None] * (size_p - len(p))})
    window = pa.table({"number": y + [float("nan")] * (size_q - len(y)), "text": q + [None] * (size_q - len(q))})
    found = {key[2:]: each for key, each in distances(reference, window, monitored).items()}
    assert found["number", "wasserstein"].value == pytest.approx(wasserstein_distance(x, y), rel=1e-9, abs=1e-9)
    assert found["number", "wasserstein"].rows == len(y)
    edges = np.histogram_bin_edges(x, bins="doane")
    shares = [
        np.append(np.histogram(each, edges)[0], sum(value < edges[0] or value > edges[-1] for value in each)) / len(each)
        for each in (x, y)
    ]
    assert found["number", "jensen_shannon"].value == pytest.approx(jensenshannon(*shares, base=2), rel=1e-7, abs=1e-7)
    deciles = np.unique(np.quantile(x, np.linspace(0.1, 0.9, 9)))
    parts = [Counter(np.searchsorted(deciles, each).tolist()) for each in (x, y)]
    assert found["number", "population_stability_index"].value == pytest.approx(stability_index(*parts), rel=1e-9, abs=1e-12)
    counts = [Counter(p), Counter(q)]
    names = sorted(counts[0] | counts[1])
    assert found["text", "jensen_shannon"].value == pytest.approx(
        jensenshannon(*([each[name] for name in names] for each in counts), base=2), rel=1e-7, abs=1e-7
    )
    assert found["text", "population_stability_index"].value == pytest.approx(stability_index(*counts), rel=1e-9, abs=1e-12)
    if len(names) > 1:
        expected = chi2_contingency([[each[name] for name in names] for each in counts]).statistic
        assert found["text", "chi2"].value == pytest.approx(expected, rel=1e-9, abs=1e-9)


def stability_index(reference: Counter, window: Counter) -> float:
    """By the definition, with half a row more in every bin."""
    bins = sorted(reference | window, key=str)
    smooth = [
        np.array([each[name] + 0.5 for name in bins]) / (sum(each.values()) + len(bins) / 2) for each in (reference, window)
    ]
    return float(np.sum((smooth[1] - smooth[0]) * np.log(smooth[1] / smooth[0])))


def test_a_slice_is_compared_with_the_same_slice_of_the_reference() -> None:
    random = np.random.default_rng(0)
    place = random.choice(["north", "south"], 3000)
    reference = pa.table({"place": place, "x": np.where(place == "north", 0.0, 5.0) + random.normal(size=3000)})
    moved = pa.table({"place": place, "x": np.where(place == "north", 0.0, 8.0) + random.normal(size=3000)})
    found = distances(reference, moved, [MonitoredColumn("x", "feature", True)], ("place",))
    assert found["0", "place = north", "x", "jensen_shannon"].value < 0.1
    assert found["0", "place = south", "x", "jensen_shannon"].value > 0.6
    alone = [table.filter(pa.array(place == "south")) for table in (reference, moved)]
    assert (
        found["0", "place = south", "x", "jensen_shannon"].value
        == distances(*alone, [MonitoredColumn("x", "feature", True)])["0", "", "x", "jensen_shannon"].value
    )


def test_rare_values_of_a_wide_category_count_as_one() -> None:
    random = np.random.default_rng(0)

    def sample() -> pa.Table:
        return pa.table({"tail": ["common"] * 500 + [f"N{number}" for number in random.integers(0, 900, 1500)]})

    found = distances(sample(), sample(), [MonitoredColumn("tail", "feature", False)])
    assert found["0", "", "tail", "jensen_shannon"].bins == 2
    assert found["0", "", "tail", "jensen_shannon"].value < 0.02
    gone = pa.table({"tail": [f"N{number}" for number in random.integers(0, 900, 1500)]})
    assert distances(sample(), gone, [MonitoredColumn("tail", "feature", False)])["0", "", "tail", "jensen_shannon"].value > 0.3


def test_columns_without_values_are_not_measured() -> None:
    reference = pa.table({"empty": pa.nulls(300, pa.float64()), "gone": [1.0] * 300, "x": np.arange(300.0)})
    window = pa.table({"empty": [1.0] * 300, "x": [np.inf, -np.inf, *np.arange(298.0)]})
    found = distances(reference, window, [MonitoredColumn(name, "feature", True) for name in ("empty", "gone", "x")])
    assert {key[2] for key in found} == {"x"}
    assert found["0", "", "x", "wasserstein"].rows == 298


def test_the_same_rows_in_any_order_give_the_same_digits() -> None:
    reference, window = census("reference", 12_000), census("analysis", 3000)
    summary = summarise(reference, EVERY, ("SEX",))
    connection = duckdb.connect(config={"threads": 4})
    found = []
    for seed in range(3):
        shuffled = window.take(pa.array(np.random.default_rng(seed).permutation(window.num_rows)))
        connection.register("rows", shuffled)
        found.append(measure_distances(connection, rows="rows", window="year", slices=("SEX",), reference=summary))
    assert found[0] == found[1] == found[2]


def test_equal_samples_are_at_no_distance() -> None:
    frame = pd.DataFrame({"x": np.arange(5000.0)})
    found = distances(pa.Table.from_pandas(frame), pa.Table.from_pandas(frame), [MonitoredColumn("x", "feature", True)])
    assert {each.method: each.value for each in found.values()} == {
        "jensen_shannon": 0.0,
        "population_stability_index": 0.0,
        "wasserstein": 0.0,
    }
