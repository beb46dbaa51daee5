"""Rows against a pandera schema inside DuckDB: everything that is wrong is in one result, counted in one scan."""

import duckdb
import pytest
from scans import scans_of

from mlops_assets.lake.tables import column_types
from mlops_assets.lake.validation import Failure, Validation, build_schema, in_words, scan, scan_by
from mlops_assets.schema.table_columns import TableColumn

COLUMNS = {
    "id": TableColumn(type="bigint", nullable=False),
    "age": TableColumn(type="integer", minimum=0, maximum=120),
    "colour": TableColumn(type="varchar", nullable=False, accepted=("red", "it's blue")),
    "weight": TableColumn(type="double", minimum=0, finite=True),
    "of_any_type": TableColumn(type=None, finite=True),
}


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.s")
    return connection


def failures(connection: duckdb.DuckDBPyConnection, rows: str, columns: dict[str, TableColumn] = COLUMNS) -> list[Failure]:
    validation = Validation(build_schema(columns, key=["id"]), column_types(connection, rows))
    found = scan(connection, validation.relation(rows), validation.measures)
    return [*validation.wrong_columns, *validation.failures(connection, rows, found)]


def test_sound_rows_have_no_failure(connection: duckdb.DuckDBPyConnection) -> None:
    rows = (
        "(SELECT 1::BIGINT AS id, NULL::INTEGER AS age, 'red' AS colour, 'nan'::DOUBLE AS weight, 3 AS of_any_type, 'x' AS more)"
    )
    assert failures(connection, rows) == []


def test_all_that_is_wrong_is_in_one_result_and_the_passing_case_scans_once(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TABLE lake.s.t AS SELECT * FROM (VALUES (1, 10, 'red', 1.5, 'inf'::DOUBLE), (2, 121, 'pink', -1.0, 2.0), "
        "(3, -1, NULL, 'nan'::DOUBLE, NULL), (4, 130, 'it''s blue', '-inf'::DOUBLE, 0.0)) t(id, age, colour, weight, of_any_type)"
    )
    connection.execute("ALTER TABLE lake.s.t ALTER COLUMN id SET DATA TYPE BIGINT")
    with scans_of(connection, "s.t") as scans:
        found = failures(scans.connection, "lake.s.t")
    assert found == [
        Failure("colour", "not_nullable", 1, (), ("3",)),
        Failure("age", "greater_than_or_equal_to(0)", 1, ("-1",), ("3",)),
        Failure("age", "less_than_or_equal_to(120)", 2, ("121", "130"), ("2", "4")),
        Failure("colour", "isin(['red', \"it's blue\"])", 1, ("pink",), ("2",)),
        Failure("weight", "greater_than_or_equal_to(0)", 2, ("-1.0", "-inf"), ("2", "4")),
        Failure("weight", "finite", 1, ("-inf",), ("4",)),
        Failure("of_any_type", "finite", 1, ("inf",), ("1",)),
    ]
    assert [str(each) for each in found[:2]] == [
        "colour: 1 missing value",
        "age: 1 wrong (greater_than_or_equal_to(0)) value, such as -1",
    ]
    # One for all that is measured, one for the examples.
    assert scans.count == 2
    connection.execute("DELETE FROM lake.s.t WHERE id <> 1; UPDATE lake.s.t SET of_any_type = 1")
    with scans_of(connection, "s.t") as scans:
        assert failures(scans.connection, "lake.s.t") == []
    assert scans.count == 1


def test_absent_columns_and_other_types_are_named_together_without_a_scan(connection: duckdb.DuckDBPyConnection) -> None:
    rows = "(SELECT '7' AS id, 'x' AS age, 'red' AS colour, DATE '2020-01-01' AS of_any_type)"
    wrong = Validation(build_schema(COLUMNS, key=["id"]), column_types(connection, rows)).wrong_columns
    assert sorted(map(str, wrong)) == ["age: varchar instead of int32", "id: varchar instead of int64", "weight: no such column"]
    assert [failure.column for failure in failures(connection, rows)] == [failure.column for failure in wrong]


def test_a_wider_column_and_another_case_or_name_of_the_type_are_as_declared(connection: duckdb.DuckDBPyConnection) -> None:
    columns = {"Number": TableColumn(type="INT4"), "small": TableColumn(type="tinyint"), "text": TableColumn(type="TEXT")}
    rows = "(SELECT 1::BIGINT AS number, 2::INTEGER AS small, 'x' AS TEXT)"
    assert Validation(build_schema(columns, key=[]), column_types(connection, rows)).wrong_columns == []
    narrower = "(SELECT 1::SMALLINT AS number, 2::TINYINT AS small, 'x' AS text)"
    wrong = Validation(build_schema(columns, key=[]), column_types(connection, narrower)).wrong_columns
    assert [failure.column for failure in wrong] == ["Number"]


def test_accepted_values_are_of_the_type_of_the_column(connection: duckdb.DuckDBPyConnection) -> None:
    columns = {
        "code": TableColumn(type="integer", accepted=("1", "2")),
        "day": TableColumn(type="date", accepted=("2020-01-01",)),
        "yes": TableColumn(type="boolean", accepted=("true",)),
        "id": TableColumn(type="integer"),
    }
    rows = "(SELECT * FROM (VALUES (1, DATE '2020-01-01', true, 1), (3, DATE '2020-01-02', false, 2)) t(code, day, yes, id))"
    assert [(failure.column, failure.examples) for failure in failures(connection, rows, columns)] == [
        ("code", ("3",)),
        ("day", ("2020-01-02",)),
        ("yes", ("False",)),
    ]


def test_measures_by_group(connection: duckdb.DuckDBPyConnection) -> None:
    rows = "(SELECT * FROM (VALUES ('a', 1), ('a', 200), ('b', -1)) t(part, age))"
    validation = Validation(build_schema({"age": COLUMNS["age"]}, key=[]), column_types(connection, rows))
    measures = {"outside": f"count(*) FILTER (WHERE {validation.violated(['age'])})", "rows": "count(*)"}
    assert scan_by(connection, validation.relation(rows), "part", measures) == (
        {"a": {"outside": 1, "rows": 2}, "b": {"outside": 1, "rows": 1}},
        {"outside": 2, "rows": 3},
    )


def test_bounds_in_words() -> None:
    schema = build_schema(COLUMNS, key=[])
    assert in_words(schema.columns["age"]) == "at least 0, at most 120"
    assert in_words(schema.columns["colour"]) == "one of red, it's blue"
