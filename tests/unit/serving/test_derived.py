"""Derived features: the values of a request are those of a table, row by row, whatever the rows."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import pytest
from bundles import contract
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.serving.contract import Contract
from mlops_assets.serving.derived import DerivedFeatures, with_derived

COLUMNS = {"minute": "integer", "carrier": "varchar", "distance": "double", "is_holiday": "boolean", "identifier": "bigint"}
EXPRESSIONS = {
    "hour": "minute // 60",
    "is_evening": "minute BETWEEN 17 * 60 AND 21 * 60",
    "speed": "distance / minute",
    "group": "CASE WHEN carrier IN ('AA', 'UA') THEN 'large' WHEN carrier IS NULL THEN 'none' ELSE lower(carrier) END",
    "number": "CAST(carrier AS INTEGER)",
    "root": "sqrt(distance)",
    "last_digit": "identifier * identifier % 10",
    "holiday_distance": "if(is_holiday, distance, -1)",
}


def contract_of(expressions: dict[str, str], columns: dict[str, str]) -> Contract:
    return contract(
        features=[
            *(
                {"name": name, "type": "double", "minimum": 0, "maximum": 1}
                for name in (*columns, *expressions)
                if name != "group"
            ),
            {"name": "group", "kind": "categorical", "type": "string", "categories": []},
        ],
        request_columns=[{"name": name, "type": kind} for name, kind in columns.items()],
        derived_features=[{"name": name, "expression": text} for name, text in expressions.items()],
    )


@pytest.fixture(scope="module")
def derived() -> DerivedFeatures:
    return DerivedFeatures(contract_of(EXPRESSIONS, COLUMNS))


@pytest.fixture(scope="module")
def table() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE asked (row INTEGER, {', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
    return connection


def offline(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a column of the frame holds for `rows`."""
    connection.execute("DELETE FROM asked")
    marks = ", ".join("?" for _ in COLUMNS)
    connection.executemany(
        f"INSERT INTO asked VALUES (?, {marks})", [[number, *map(row.get, COLUMNS)] for number, row in enumerate(rows)]
    )
    names = ", ".join(f'"{name}"' for name in EXPRESSIONS)
    found = connection.execute(f"SELECT {names} FROM ({with_derived('FROM asked', EXPRESSIONS)}) ORDER BY row").fetchall()
    return [dict(zip(EXPRESSIONS, row, strict=True)) for row in found]


rows_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "minute": st.none() | st.integers(-(2**31), 2**31 - 1),
            "carrier": st.none()
            | st.sampled_from(["AA", "12", "it's", "", "Ü?"])
            | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            "distance": st.none() | st.floats(width=64),
            "is_holiday": st.none() | st.booleans(),
            "identifier": st.none() | st.integers(-(2**63), 2**63 - 1),
        }
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=examples(60))
@given(rows=rows_strategy)
def test_a_request_gets_the_values_of_the_lake(
    derived: DerivedFeatures, table: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]
) -> None:
    # NaN is not equal to itself, and its text is; so are the types.
    assert [repr(row) for row in derived.evaluate(rows)] == [repr(row) for row in offline(table, rows)]


def test_one_row(derived: DerivedFeatures) -> None:
    row = {"minute": 1090, "carrier": "UA", "distance": 2180.0, "is_holiday": False, "identifier": 13}
    assert derived.evaluate([row]) == [
        {
            "hour": 18,
            "is_evening": True,
            "speed": 2.0,
            "group": "large",
            "number": None,
            "root": pytest.approx(46.69, abs=0.01),
            "last_digit": 9,
            "holiday_distance": -1.0,
        }
    ]
    assert derived.evaluate([]) == []


def test_what_a_caller_does_wrong_is_named(derived: DerivedFeatures) -> None:
    row = {"minute": 1090, "carrier": "UA", "distance": 2180.0, "is_holiday": False, "identifier": 13}
    with pytest.raises(ValueError, match="lacks carrier"):
        derived.evaluate([{name: value for name, value in row.items() if name != "carrier"}])
    with pytest.raises(ValueError, match="not of its column's type"):
        derived.evaluate([row | {"minute": "noon"}])
    with pytest.raises(ValueError, match="not of its column's type"):
        derived.evaluate([row | {"minute": 2**40}])
    for value in ("a\0b", [1], b"UA"):
        with pytest.raises(ValueError, match="carrier: "):
            derived.evaluate([row | {"carrier": value}])
    assert derived.evaluate([row | {"carrier": "'); DROP TABLE x; --"}])[0]["hour"] == 18


def test_several_threads(derived: DerivedFeatures) -> None:
    row = {"carrier": "UA", "distance": 2180.0, "is_holiday": False, "identifier": 13}
    with ThreadPoolExecutor(8) as pool:
        hours = list(pool.map(lambda hour: derived.evaluate([row | {"minute": hour * 60}])[0]["hour"], range(200)))
    assert hours == list(range(200))


def test_a_contract_without_derived_features_opens_nothing() -> None:
    without = DerivedFeatures(contract_of({}, {"minute": "integer"}))
    assert without.evaluate([{"minute": 1}, {"minute": 2}]) == [{}, {}]
    assert with_derived("FROM asked", {}) == "FROM asked"


def test_only_features_can_be_derived() -> None:
    with pytest.raises(ValueError, match="must be features: hour"):
        Contract.model_validate(
            contract_of({}, {}).model_dump() | {"derived_features": [{"name": "hour", "expression": "minute // 60"}]}
        )


def test_a_serving_process_needs_no_pandas() -> None:
    code = (
        "import sys, mlops_assets.serving.derived as d, mlops_assets.serving.contract as c; "
        f"f = d.DerivedFeatures(c.Contract.model_validate_json({contract_of(EXPRESSIONS, COLUMNS).model_dump_json()!r})); "
        f"f.evaluate([dict.fromkeys({list(COLUMNS)})]); "
        "assert not {'pandas', 'sklearn', 'dagster', 'sqlglot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
