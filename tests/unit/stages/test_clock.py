from datetime import UTC, datetime

import dagster as dg
import duckdb
import pytest
from clinic import lake_in_memory, solution_inputs

from mlops_assets.stages.clock import data_clock


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    made = lake_in_memory()
    made.execute("CREATE TABLE lake.clinic.visits (day DATE)")
    return made


@pytest.mark.parametrize(
    ("cadence", "newest", "expected"),
    [
        ("daily", "2020-07-04", datetime(2020, 7, 5, 4, tzinfo=UTC)),
        ("monthly", "2020-07-01", datetime(2020, 8, 1, 4, tzinfo=UTC)),
        ("yearly", "2020-01-01", datetime(2021, 1, 1, 5, tzinfo=UTC)),
    ],
)
def test_the_clock_stands_at_the_end_of_the_newest_partition(
    connection: duckdb.DuckDBPyConnection, cadence: str, newest: str, expected: datetime
) -> None:
    connection.execute(f"INSERT INTO lake.clinic.visits VALUES ('2020-01-01'), ('{newest}')")
    assert data_clock(connection, solution_inputs(cadence)) == expected


def test_without_data_there_is_no_clock(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(dg.Failure, match=r"clinic.visits has no rows"):
        data_clock(connection, solution_inputs("daily"))
