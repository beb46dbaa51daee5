"""Checks of a training dataset on rows in memory: one scan, the contract, one definition of missing, and what tells the label is found."""

from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg
import pytest
from clinic import lake_in_memory, solution_inputs
from scans import scans_of

from mlops_assets.schema.gates_section import DatasetChecks
from mlops_assets.training.dataset_checks import check_dataset

ROWS = 4000


def check(
    *,
    problem: str = "binary_classification",
    label: str = "i % 7 % 2",
    limit: float = 0.95,
    minimum: int | None = 10,
    contract: dict[str, Any] | None = None,
    key: str = "i",
    scans: int | None = None,
    **features: str,
) -> dict[str, Any]:
    """The checks of a dataset whose columns are SQL over `i`, the number of the row, and `late`, its label; half is the hold-out."""
    connection = lake_in_memory()
    columns = "".join(f", {expression} AS {name}" for name, expression in features.items())
    connection.execute(
        f"CREATE TABLE lake.clinic.dataset AS SELECT DATE '2020-01-09' AS training_date, DATE '2020-01-01' AS day, *{columns} "
        f"FROM (SELECT {key} AS id, CASE WHEN i < {ROWS // 2} THEN 'train' ELSE 'holdout' END "
        f"AS split, TIMESTAMPTZ '2020-01-01 12:00:00+00' + INTERVAL 1 MINUTE * i AS at, "
        f"TIMESTAMPTZ '2020-01-01 12:30:00+00' + INTERVAL 1 MINUTE * i AS known_at, {label} AS late, hash(i) % 1000 / 1000 AS u "
        f"FROM range({ROWS}) r(i))"
    )
    inputs = solution_inputs("daily")
    solution = inputs.solution.model_copy(
        update={"problem": problem, "checks": DatasetChecks(minimum_rows=minimum, maximum_missing=limit)}
    )
    inputs = replace(inputs, solution=solution, request=tuple(features), spine=replace(inputs.spine, **(contract or {})))
    with scans_of(connection, "clinic.dataset") as recorded:
        checked = check_dataset(recorded.connection, inputs, rows="(FROM lake.clinic.dataset)", training_date=date(2020, 1, 9))
    assert scans in (None, recorded.count), recorded.queries
    return {str(result.check_name): result for result in checked.results}


def evidence(result: dg.AssetCheckResult, name: str) -> Any:
    value = result.metadata[name]
    return getattr(value, "value", value)


def test_one_nan_or_infinity_ends_nothing_and_is_named() -> None:
    found = check(
        leak="CASE WHEN id = 7 THEN 'nan'::DOUBLE ELSE late + u / 100 END", wild="CASE WHEN id = 7 THEN 'inf'::DOUBLE ELSE u END"
    )
    assert not found["leakage_guard"].passed
    assert found["leakage_guard"].description == "leak gives the label away"
    assert not found["schema"].passed
    assert found["schema"].description == "wild: 1 infinite value, such as inf"
    assert evidence(found["schema"], "failures") == [
        {"column": "wild", "check": "finite", "count": 1, "examples": ["inf"], "keys": ["7"]}
    ]


def test_sound_rows_are_scanned_once() -> None:
    found = check(
        innocent="u", text="'t' || id % 5", contract={"columns": {"innocent": "double", "text": "varchar", "id": "bigint"}}
    )
    assert all(result.passed for result in found.values())


def test_too_few_rows_are_told_with_the_limit_and_its_field() -> None:
    assert check(innocent="u", minimum=None)["row_count"].passed
    few = check(innocent="u", minimum=ROWS)["row_count"]
    assert not few.passed
    assert few.description == f"{ROWS // 2} training rows, checks.minimum_rows is {ROWS} (as the file states)"


def test_the_contract_of_the_spine_is_the_schema() -> None:
    found = check(
        scans=2,
        age="id % 50",
        colour="CASE WHEN id = 5 THEN 'pink' ELSE 'red' END",
        needed="CASE WHEN id < 3 THEN NULL ELSE u END",
        contract={
            "columns": {"age": "varchar", "colour": "varchar", "needed": "double", "late": "bigint"},
            "required": frozenset({"needed"}),
            "accepted": {"colour": ("red", "green")},
        },
    )
    assert not found["schema"].passed
    assert found["schema"].description == (
        "age: bigint instead of string; needed: 3 missing values; colour: 1 wrong (isin(['red', 'green'])) value, such as pink"
    )
    assert evidence(found["schema"], "failures")[1]["keys"] == ["0", "1", "2"]


def test_repeated_keys_are_looked_up_only_when_there_are_some() -> None:
    # Once for what is measured, twice for the keys and their rows.
    found = check(scans=3, key="i // 2", innocent="u")
    assert not found["duplicates"].passed
    assert evidence(found["duplicates"], "rows_with_such_keys") == ROWS


def test_a_number_beyond_float32_is_infinite_and_no_statistic_overflows() -> None:
    found = check(huge="u * 1e300", negative="CASE WHEN id % 3 = 0 THEN -1e39 ELSE u END", large="u * 1e38")
    assert {each["column"] for each in evidence(found["schema"], "failures")} == {"huge", "negative"}
    assert found["leakage_guard"].passed


def test_nan_is_missing_as_null_is() -> None:
    found = check(
        hollow="'nan'::DOUBLE", mixed="CASE WHEN id % 2 = 0 THEN 'nan'::DOUBLE WHEN id % 4 = 1 THEN NULL ELSE u END", full="u"
    )
    assert not found["missing"].passed
    assert evidence(found["missing"], "above_limit") == {"hollow": 1.0}
    assert evidence(found["missing"], "share_by_feature") == {"hollow": 1.0, "mixed": 0.75}
    assert "hollow" in evidence(found["constant_columns"], "share_of_most_frequent_value")


def test_nan_beside_one_value_is_constant() -> None:
    found = check(flat="CASE WHEN id % 2 = 0 THEN 'nan'::DOUBLE ELSE 3 END")
    assert evidence(found["constant_columns"], "share_of_most_frequent_value") == {"flat": 1.0}


@pytest.mark.parametrize("limit", [0.95, 1.0])
def test_a_feature_that_only_the_holdout_has_is_missing(limit: float) -> None:
    found = check(late_comer=f"CASE WHEN id >= {ROWS // 2} THEN u END", limit=limit)
    assert not found["missing"].passed
    assert found["missing"].description == "missing too often: late_comer (in all training rows)"


def test_a_feature_that_is_missing_throughout_may_be_accepted() -> None:
    assert check(none="NULL::DOUBLE", limit=1.0)["missing"].passed


@pytest.mark.parametrize(
    "leak",
    [
        "'outcome ' || late",
        "late = 1",
        "CASE WHEN late = 0 THEN 'x' END",
        "CASE WHEN late = 0 THEN 'nan'::DOUBLE ELSE u END",
        "CASE WHEN late = 1 THEN 2 WHEN u < 0.5 THEN 1 ELSE 3 END",
        "CASE WHEN late = 1 THEN 0.4 + u / 5 WHEN u < 0.5 THEN u / 4 ELSE 1 - u / 4 END",
        "CASE WHEN late = 1 THEN 'a' || id % 20 ELSE 'b' || id % 20 END",
    ],
)
def test_what_tells_a_binary_label_in_any_form_leaks(leak: str) -> None:
    found = check(leak=leak, innocent="u")
    assert found["leakage_guard"].description == "leak gives the label away"


@pytest.mark.parametrize("label", ["id % 5 % 3", "'class ' || id % 5 % 3"])
def test_codes_of_several_classes_leak(label: str) -> None:
    found = check(
        problem="multiclass_classification",
        label=label.replace("id", "i"),
        code="CASE CAST(right(late::VARCHAR, 1) AS INTEGER) WHEN 0 THEN 5 WHEN 1 THEN 1 ELSE 3 END",
        as_text="late::VARCHAR",
        innocent="u",
    )
    assert evidence(found["leakage_guard"], "features_that_give_the_label_away").keys() == {"code", "as_text"}


def test_a_relation_without_a_line_to_a_number_leaks() -> None:
    found = check(
        problem="regression",
        label="(i % 100 - 50) ** 2",
        parabola="sqrt(late) * CASE WHEN u < 0.5 THEN -1 ELSE 1 END",
        innocent="u",
    )
    assert found["leakage_guard"].description == "parabola gives the label away"


@pytest.mark.parametrize(
    "innocent",
    [
        "id",
        "md5(id::VARCHAR)",
        "id % 1500",
        "'k' || hash(id) % 900",
        "u",
        "CASE WHEN u < 0.8 THEN late ELSE 1 - late END",
        "NULL::VARCHAR",
    ],
)
def test_many_categories_or_a_good_feature_do_not_leak(innocent: str) -> None:
    assert check(label="hash(i) // 7 % 2", innocent=innocent)["leakage_guard"].passed


def test_an_infinite_label_is_named() -> None:
    found = check(problem="regression", label="CASE WHEN i = 3 THEN '-inf'::DOUBLE ELSE i % 11 END", innocent="u")
    assert found["schema"].description == "late: 1 infinite value, such as -inf"
    assert found["leakage_guard"].passed
