from collections.abc import Iterator

import duckdb
import pytest
from clinic import lake_in_memory, solution_inputs

from mlops_assets.operations.row_counts import find_row_problems


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with lake_in_memory() as connection:
        yield connection


def write_visits(connection: duckdb.DuckDBPyConnection, days: int) -> None:
    """Ten visits on each of the first `days` of March."""
    connection.execute(
        "CREATE TABLE lake.clinic.visits AS SELECT i AS id, DATE '2020-03-01' + CAST(i // 10 AS INTEGER) AS day, "
        "CAST(DATE '2020-03-01' + CAST(i // 10 AS INTEGER) AS TIMESTAMPTZ) + INTERVAL 12 HOUR AS \"at\", "
        f'"at" + INTERVAL 1 HOUR AS known_at, i % 80 AS age, i % 2 = 0 AS late FROM range(10 * {days}) r(i)'
    )


def test_without_a_stated_minimum_it_is_that_of_the_check(connection: duckdb.DuckDBPyConnection) -> None:
    """Ten rows for each feature, at least fifty, of the days before a hold-out of five."""
    write_visits(connection, 9)
    [problem] = find_row_problems(connection, solution_inputs("daily"))
    assert problem.errors[0].path == ("checks", "minimum_rows")
    assert "there are 40 labelled rows to train on" in str(problem)
    assert "asks for 50" in str(problem)


def test_enough_rows_and_an_empty_spine_are_no_problem(connection: duckdb.DuckDBPyConnection) -> None:
    assert list(find_row_problems(connection, solution_inputs("daily"))) == []
    write_visits(connection, 20)
    assert list(find_row_problems(connection, solution_inputs("daily"))) == []
