"""The rows that show an alert: those whose share grew, of columns with more categories than anybody lists."""

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.reference import MonitoredColumn, Reference, summarise
from mlops_assets.monitoring.alerts import grown_share
from mlops_assets.monitoring.monitored_windows import STAGED_WINDOW
from mlops_assets.schema.column_names import MODEL_VERSION

WINDOW = "2020-03-02"
COMMON, RARE = ["a", "it's"], [f"rare {number}" for number in range(500)]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def reference() -> Reference:
    """Of a thousand rows each: two frequent places and five hundred rare ones, and ages from 0 to 99."""
    rows = pa.table({"place": COMMON * 500 + RARE * 2, "age": np.arange(2000) % 100.0})
    columns = [MonitoredColumn("place", "feature", numeric=False), MonitoredColumn("age", "feature", numeric=True)]
    return summarise(rows, columns, ())


def shown(connection: duckdb.DuckDBPyConnection, feature: str, values: list[object]) -> list[object]:
    """The values of a window's rows that are behind the drift of `feature`."""
    typed = "DOUBLE" if feature == "age" else "VARCHAR"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE monitored_rows AS SELECT CAST(unnest(?) AS {typed}) AS {feature}, 1 AS {MODEL_VERSION}, "
        f"DATE '{WINDOW}' AS {STAGED_WINDOW}",
        [values],
    )
    condition = grown_share(connection, WINDOW, {"feature": feature, MODEL_VERSION: 1}, reference())
    return [value for (value,) in connection.execute(f"SELECT {feature} FROM monitored_rows WHERE {condition}").fetchall()]


def test_the_rows_of_an_alert_are_those_whose_share_grew(connection: duckdb.DuckDBPyConnection) -> None:
    assert shown(connection, "place", ["it's"] * 60 + ["a"] * 10 + RARE[:20] + [None]) == ["it's"] * 60
    # What is rare, and what the reference never had, is one category with it.
    assert shown(connection, "place", ["a"] * 10 + RARE[:30] + ["never seen"] * 3 + [None]) == [*RARE[:30], *["never seen"] * 3]
    assert shown(connection, "age", [*map(float, range(100)), *[95.0] * 20, None]) == [*map(float, range(90, 100)), *[95.0] * 20]


def test_a_window_without_values_has_no_such_rows(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE monitored_rows AS SELECT CAST(NULL AS VARCHAR) AS place, 1 AS {MODEL_VERSION}, "
        f"DATE '{WINDOW}' AS {STAGED_WINDOW}"
    )
    assert grown_share(connection, WINDOW, {"feature": "place", MODEL_VERSION: 1}, reference()) is None
