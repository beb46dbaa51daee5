import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mlops_assets.ml.drift import ALL_FEATURES, OTHER_CATEGORY, DriftResult, DriftSettings, compute_drift
from mlops_assets.ml.matrix import FeatureSchema, to_frame

SCHEMA = FeatureSchema(numeric=("AGEP",), categorical=("SCHL", "MAR", "RELP", "SEX"))
SETTINGS = DriftSettings(continuous_methods=("jensen_shannon", "wasserstein"))


@pytest.fixture(scope="module")
def census() -> tuple[pa.Table, pa.Table]:
    """Reference year and later years of the US census employment data, 4,000 rows each, shuffled."""
    package = find_spec("nannyml")
    assert package is not None
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    tables = []
    for name in ("reference", "analysis"):
        table = pq.read_table(folder / f"employment_MA_{name}.pq", columns=["id", *SCHEMA.names])
        chosen = np.random.default_rng(0).permutation(table.num_rows)[:4000]
        table = table.take(pa.array(chosen))
        tables.append(
            pa.table(
                {
                    each: table[each] if each in ("id", "AGEP") else pc.cast(table[each], pa.string())
                    for each in table.column_names
                }
            )
        )
    return tables[0], tables[1]


def _drift(
    reference: pa.Table, *windows: pa.Table, settings: DriftSettings = SETTINGS, schema: FeatureSchema = SCHEMA
) -> DriftResult:
    return compute_drift(
        reference=reference,
        windows=[(f"window {number}", table) for number, table in enumerate(windows)],
        schema=schema,
        settings=settings,
        reference_chunk_column=None,
        key_column="id" if "id" in reference.column_names else None,
    )


def test_values_and_thresholds_are_those_of_nannyml(census) -> None:
    reference, analysis = census
    result = _drift(reference, analysis.slice(0, 2000), analysis.slice(2000))
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    import nannyml

    frames = [to_frame(table, SCHEMA) for table in census]
    for frame in frames:
        frame["AGEP"] = frame["AGEP"].astype("float64")
    direct = nannyml.UnivariateDriftCalculator(
        column_names=list(SCHEMA.names),
        chunk_number=10,
        continuous_methods=["jensen_shannon", "wasserstein"],
        categorical_methods=["jensen_shannon"],
    ).fit(frames[0])
    direct.chunker = nannyml.SizeBasedChunker(chunk_size=2000)
    expected = direct.calculate(frames[1]).filter(period="analysis").data.sort_index(axis=1)
    together = nannyml.DataReconstructionDriftCalculator(column_names=list(SCHEMA.names), chunk_number=10).fit(frames[0])
    together.chunker = nannyml.SizeBasedChunker(chunk_size=2000)
    expected_together = together.calculate(frames[1]).filter(period="analysis").data
    compared = 0
    for position in range(2):
        for row in result.of_window(f"window {position}"):
            cell = (
                expected_together["reconstruction_error"].iloc[position]
                if row.feature == ALL_FEATURES
                else expected[(row.feature, row.method)].iloc[position]
            )
            assert row.value == pytest.approx(cell["value"], rel=1e-12)
            assert row.upper_threshold == pytest.approx(cell["upper_threshold"], rel=1e-9)
            compared += 1
    assert compared == 2 * (2 + 4 + 1)


def test_rows_of_the_reference_give_no_alert(census) -> None:
    reference, _ = census
    result = _drift(reference, reference, reference.slice(0, 1500), reference.slice(1500))
    assert not [row for row in result.rows if row.alert]
    assert [row.value for row in result.of_window("window 0") if row.method == "jensen_shannon"] == pytest.approx(
        [0] * 5, abs=1e-7
    )


def test_shifted_data_alerts_and_the_floor_holds_small_changes_back(census) -> None:
    reference, _ = census
    shifted = reference.set_column(reference.column_names.index("AGEP"), "AGEP", pc.add(reference["AGEP"], 15))
    result = _drift(reference, shifted)
    assert {(row.feature, row.method) for row in result.rows if row.alert} >= {
        ("AGEP", "jensen_shannon"),
        ("AGEP", "wasserstein"),
    }
    shift = next(row for row in result.rows if row.method == "wasserstein")
    assert shift.value == pytest.approx(15, abs=0.1)
    assert shift.effect == pytest.approx(15 / np.std(reference["AGEP"].to_numpy(), ddof=1), rel=0.01)
    strict = DriftSettings(effect_floors={"jensen_shannon": 1.1, "reconstruction_error": 9.9})
    assert not [row for row in _drift(reference, shifted, settings=strict).rows if row.alert]


def test_the_order_of_the_windows_rows_does_not_matter(census) -> None:
    reference, analysis = census
    shuffled = analysis.take(pa.array(np.random.default_rng(1).permutation(analysis.num_rows)))
    first, second = _drift(reference, analysis), _drift(reference, shuffled)
    assert [row.value for row in first.rows] == pytest.approx([row.value for row in second.rows], rel=1e-9)


def test_a_sample_depends_on_the_keys_alone(census) -> None:
    reference, analysis = census
    settings = DriftSettings(maximum_rows=1000)
    shuffled = analysis.take(pa.array(np.random.default_rng(1).permutation(analysis.num_rows)))
    first, second = (_drift(reference, table, settings=settings) for table in (analysis, shuffled))
    assert (first.reference_rows, dict(first.window_rows)) == (1000, {"window 0": 1000})
    assert [row.value for row in first.rows] == pytest.approx([row.value for row in second.rows], rel=1e-9)
    with pytest.raises(ValueError, match="needs a key_column"):
        _drift(reference.drop_columns(["id"]), analysis.drop_columns(["id"]), settings=settings)


def test_features_that_vanish_or_appear_alert_and_missing_values_are_read(census) -> None:
    random = np.random.default_rng(0)
    columns = {name: pa.array(random.normal(size=900), mask=random.random(900) < 0.2) for name in ("a", "b", "vanished")}
    nothing = pa.nulls(900, pa.float64())
    reference = pa.table(columns | {"appeared": nothing, "never": nothing, "kind": ["x"] * 900})
    infinite = pa.array([np.inf, -np.inf, *random.normal(size=898)])
    window = pa.table(
        columns | {"a": infinite, "vanished": nothing, "appeared": columns["b"], "never": nothing, "kind": ["x"] * 900}
    )
    schema = FeatureSchema(numeric=("a", "b", "vanished", "appeared", "never"), categorical=("kind",))
    result = _drift(reference, window, settings=DriftSettings(), schema=schema)
    assert [row.feature for row in result.rows if row.alert and row.value is None] == ["vanished", "appeared"]
    assert {row.feature: row.value is None for row in result.rows} == {
        "a": False,
        "b": False,
        "vanished": True,
        "appeared": True,
        "never": True,
        "kind": False,
        "*": False,
    }
    assert result.excluded_from_reconstruction == ("appeared", "never")


def test_a_constant_reference_has_no_scale_and_any_distance_alerts() -> None:
    reference = pa.table({"x": [1.0] * 200, "y": np.random.default_rng(0).normal(size=200)})
    schema = FeatureSchema(numeric=("x", "y"), categorical=())
    moved = reference.set_column(0, "x", pa.array([1.5] * 200))
    result = _drift(reference, reference, moved, schema=schema)
    rows = [row for row in result.rows if (row.feature, row.method) == ("x", "wasserstein")]
    assert [(row.value, row.effect, row.alert) for row in rows] == [(0.0, None, False), (0.5, None, True)]


def test_rare_values_of_a_wide_category_count_as_one() -> None:
    random = np.random.default_rng(0)

    def table() -> pa.Table:
        return pa.table({"tail": [f"N{number}" for number in random.integers(0, 900, 1000)], "x": random.normal(size=1000)})

    schema = FeatureSchema(numeric=("x",), categorical=("tail",))
    wide = _drift(table(), table(), settings=DriftSettings(maximum_categories=2000), schema=schema)
    collapsed = _drift(table(), table(), settings=DriftSettings(maximum_categories=20), schema=schema)
    value = {id(result): next(row.value for row in result.rows if row.feature == "tail") for result in (wide, collapsed)}
    assert collapsed.collapsed_features == ("tail",)
    assert collapsed.excluded_from_reconstruction == ("tail",)
    assert value[id(collapsed)] < 0.5 < value[id(wide)] + 0.1
    assert OTHER_CATEGORY == "(other)"


def test_chunks_of_the_reference_come_from_a_column(census) -> None:
    reference, analysis = census
    weeks = np.sort(np.arange(reference.num_rows) % 8)
    chunked = reference.append_column("week", pa.array(weeks))
    in_order = compute_drift(
        reference=chunked,
        windows=[("w", analysis)],
        schema=SCHEMA,
        settings=SETTINGS,
        reference_chunk_column="week",
        key_column=None,
    )
    eight = DriftSettings(continuous_methods=SETTINGS.continuous_methods, reference_chunks=8)
    equal_pieces = _drift(reference, analysis, settings=eight)
    assert [row.upper_threshold for row in in_order.rows] == pytest.approx(
        [row.upper_threshold for row in equal_pieces.rows], rel=1e-9
    )


def test_a_result_is_a_table_and_json(census) -> None:
    reference, analysis = census
    result = _drift(reference, analysis.slice(0, 500))
    assert result.to_arrow().num_rows == len(result.rows)
    assert json.loads(json.dumps(result.as_dict()))["window_rows"] == {"window 0": 500}


def test_wrong_input_is_named(census) -> None:
    reference, analysis = census
    with pytest.raises(ValueError, match="No rows in window window 1"):
        _drift(reference, analysis, analysis.slice(0, 0))
    with pytest.raises(ValueError, match="at least one window"):
        _drift(reference)
    with pytest.raises(ValueError, match="gives one chunk"):
        _drift(reference.slice(0, 1), analysis)
    with pytest.raises(ValueError, match="no floor of hellinger"):
        _drift(reference, analysis, settings=DriftSettings(continuous_methods=("hellinger",)))
