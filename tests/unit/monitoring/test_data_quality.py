import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.reference import MonitoredColumn, summarise
from mlops_assets.monitoring.data_quality import RULES, Expectation, QualityFinding, check_results, measure_quality
from mlops_assets.schema.monitoring_section import DataQuality
from mlops_assets.serving.contract import CategoricalFeature, Contract, describe_features

ROWS = 1000
SCHEMA = FeatureSchema(numeric=("age", "flag"), categorical=("place",))


def rows(seed: int = 0, **columns: object) -> pa.Table:
    random = np.random.default_rng(seed)
    usual = {
        "id": np.arange(ROWS),
        "age": random.uniform(0, 100, ROWS),
        "flag": random.integers(0, 2, ROWS).astype(np.float64),
        "place": random.choice(["it's", "here"], ROWS),
    }
    return pa.table({**usual, **columns})


def expected(expected_rows: float = ROWS, moving: tuple[str, ...] = ()) -> Expectation:
    reference = rows()
    # Fixed ends, so that another sample of the same kind is inside.
    reference = reference.set_column(1, "age", pa.array(np.r_[0.0, 100.0, reference["age"].to_numpy()[2:]]))
    contract = Contract.model_construct(features=describe_features(reference, SCHEMA))
    monitored = [MonitoredColumn(name, "feature", name != "place") for name in SCHEMA.names]
    described = {each["feature"]: each for each in summarise(reference, monitored, ()).columns.to_pylist()}
    return Expectation(contract=contract, reference=described, rows=expected_rows, counted="true", key="id", moving=moving)


def alerts(table: pa.Table, against: Expectation | None = None) -> dict[tuple[str, str], QualityFinding]:
    connection = duckdb.connect()
    connection.register("rows", table)
    found = measure_quality(connection, rows="rows", expected=against or expected(), limits=DataQuality(), false_alarms=0.05)
    return {(each.check, each.feature): each for each in found if each.alert}


def test_rows_like_those_of_the_hold_out_have_no_finding() -> None:
    assert alerts(rows(seed=1)) == {}


def test_each_fault_is_found_and_named() -> None:
    age, place = rows()["age"].to_numpy().copy(), rows()["place"].to_pylist()
    missing = pa.array(np.where(np.arange(ROWS) % 10 == 0, np.nan, age), from_pandas=True)
    assert alerts(rows(age=missing))["missing_values", "age"].rows == 100

    age[:30] = 250.0
    [(key, finding)] = alerts(rows(age=age)).items()
    assert key == ("out_of_range", "age")
    assert (finding.value, finding.examples) == (0.03, "250.0 (30 rows)")

    [(key, finding)] = alerts(rows(place=["elsewhere"] * 50 + place[50:])).items()
    assert key == ("unseen_categories", "place")
    assert finding.examples == "elsewhere (50 rows)"

    [(key, finding)] = alerts(rows(flag=np.ones(ROWS))).items()
    assert key == ("constant_features", "flag")

    [(key, finding)] = alerts(rows(id=np.r_[0, 0, np.arange(2, ROWS)])).items()
    assert key == ("duplicate_predictions", "*")
    assert (finding.rows, finding.examples) == (1, "0")


def test_a_value_is_unseen_beside_thousands_of_seen_ones_and_by_its_text_when_the_type_changed() -> None:
    numbers = [str(number % 4000) for number in range(ROWS)]
    categories = tuple(sorted(map(str, range(4000))))
    contract = Contract.model_construct(features=(CategoricalFeature(name="place", type="string", categories=categories),))
    against = Expectation(contract=contract, reference={}, rows=ROWS, counted="true", key="id", moving=())
    assert alerts(rows(place=numbers), against) == {}
    unseen = alerts(rows(place=[*numbers[:-30], *["4000"] * 20, *["it's"] * 10]), against)
    assert unseen["unseen_categories", "place"].examples == "4000 (20 rows), it's (10 rows)"
    # Whole numbers now: those that training held are no unseen ones.
    changed = alerts(rows(place=[*range(ROWS - 30), *[4000] * 30]), against)
    assert set(changed) == {("schema_change", "place"), ("unseen_categories", "place")}
    assert changed["unseen_categories", "place"].rows == 30


def test_nan_is_missing_and_infinity_out_of_range() -> None:
    age = rows()["age"].to_numpy().copy()
    age[:100] = np.nan
    [(key, finding)] = alerts(rows(age=pa.array(age, from_pandas=False))).items()
    assert (key, finding.rows) == (("missing_values", "age"), 100)

    age = rows()["age"].to_numpy().copy()
    age[:20], age[20:30] = np.inf, -1e300
    [(key, finding)] = alerts(rows(age=age)).items()
    assert (key, finding.rows) == (("out_of_range", "age"), 30)
    assert finding.examples == "inf (20 rows), -1e+300 (10 rows)"

    flag = np.where(np.arange(ROWS) % 100 == 0, np.nan, 1.0)
    found = alerts(rows(flag=pa.array(flag, from_pandas=False)))
    assert set(found) == {("constant_features", "flag")}
    assert found["constant_features", "flag"].value == 1.0


@pytest.mark.parametrize("share", [0.3, 3.0])
def test_too_few_and_too_many_rows_are_found(share: float) -> None:
    [(key, finding)] = alerts(rows(seed=1), expected(ROWS / share)).items()
    assert key == ("window_rows", "*")
    assert finding.rows == ROWS


def test_a_column_that_is_gone_or_of_another_type_is_found() -> None:
    changed = rows(seed=1).drop_columns(["flag"])
    changed = changed.set_column(changed.column_names.index("age"), "age", changed["age"].cast(pa.int64(), safe=False))
    found = alerts(changed)
    assert set(found) == {("schema_change", "age"), ("schema_change", "flag")}
    assert found["schema_change", "age"].examples == "double in training, int64 now"


def test_a_share_that_chance_explains_is_no_finding_and_nothing_is_said_of_no_rows() -> None:
    few = pa.array([None, *rows()["age"].to_pylist()[1:16]], pa.float64())
    small = rows(seed=1).slice(0, 16).set_column(1, "age", few)
    against = expected(16)
    usual = {**against.reference, "age": {**against.reference["age"], "missing": 50, "rows": 950}}
    assert alerts(small, Expectation(against.contract, usual, 16, "true", "id", ())) == {}
    assert set(alerts(rows().slice(0, 0))) == {("window_rows", "*")}


def test_a_feature_that_moves_by_nature_may_leave_its_range() -> None:
    assert alerts(rows(age=np.full(ROWS, 500.0) + np.arange(ROWS)), expected(moving=("age",))) == {}


def test_each_check_says_what_was_wrong_where() -> None:
    wrong = QualityFinding("missing_values", "age", 0.4, 0.05, 400, None, True)
    by_window = check_results(dg.AssetKey(["s", "q"]), {"2020-01-06": [wrong], "2020-01-13": []})
    assert all(each.passed for each in by_window if each.partition == "2020-01-13")
    found = {each.check_name: each for each in by_window if each.partition == "2020-01-06"}
    assert set(found) == set(RULES)
    assert [name for name, each in found.items() if not each.passed] == ["missing_values"]
    assert found["missing_values"].description == "age in 2020-01-06"
    assert found["missing_values"].severity == dg.AssetCheckSeverity.WARN
