import dataclasses
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from clinic import solution_inputs
from lake_in_folder import lake_in_folder

from mlops_assets.core.settings import Settings
from mlops_assets.ml.drift import to_arrow
from mlops_assets.ml.report_rows import DriftRow
from mlops_assets.monitoring.monitored_windows import (
    STAGED_WINDOW,
    report_columns,
    report_query,
    rows_of_version,
    sampled_windows,
    stage_rows,
    validate_report,
    window_rows,
    windows_from_keys,
)
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.table_columns import row_columns

MOST = 1000
KEYS = ["2020-01-06", "2020-01-13"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def connect(tmp_path: Path) -> Callable[[], duckdb.DuckDBPyConnection]:
    """Open the lake, whose catalog is a file, as each report does."""

    def connect() -> duckdb.DuckDBPyConnection:
        return lake_in_folder(tmp_path)

    return connect


@pytest.fixture
def connection(connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
    """Six weeks of predictions, 100 a day, by version 1 and from 16 January on by version 2; every tenth label is not known."""
    made = connect()
    made.execute("CREATE SCHEMA lake.clinic")
    made.execute(
        "CREATE TABLE lake.clinic.predictions AS SELECT d || ':' || i AS prediction_id, d * 100 + i AS id, "
        "DATE '2020-01-01' + d::INTEGER AS day, TIMESTAMPTZ '2020-01-01 12:00:00+00' + INTERVAL 1 DAY * d AS at, "
        "CASE WHEN d < 15 THEN 1 ELSE 2 END AS model_version, i AS age, 0.5 AS score "
        "FROM range(42) t(d), range(100) u(i)"
    )
    made.execute(
        "CREATE TABLE lake.clinic.outcomes AS SELECT prediction_id, day, CASE WHEN id % 10 > 0 THEN 1 END AS late, id % 10 > 0 AS matured "
        "FROM lake.clinic.predictions"
    )
    return made


def test_a_window_has_its_days_its_versions_and_the_labels_that_are_known(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    inputs = solution_inputs("daily")
    assert stage_rows(connection, settings, inputs, windows_from_keys(inputs, KEYS)) == [1, 2]
    counts = connection.execute(
        f"SELECT {STAGED_WINDOW}, min(day), max(day), count(*), count(late) FROM {ROWS} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [[str(value) for value in row] for row in counts] == [
        ["2020-01-06", "2020-01-06", "2020-01-12", "700", "630"],
        ["2020-01-13", "2020-01-13", "2020-01-19", "700", "630"],
    ]
    rows = {
        version: {key: table.num_rows for key, table in window_rows(connection, inputs, version).items()} for version in (1, 2)
    }
    assert rows == {1: {"2020-01-06": 700, "2020-01-13": 300}, 2: {"2020-01-13": 400}}


def test_without_outcomes_no_label_is_known(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    connection.execute("DROP TABLE lake.clinic.outcomes")
    inputs = solution_inputs("daily")
    stage_rows(connection, settings, inputs, windows_from_keys(inputs, KEYS[:1]))
    assert connection.execute(f"SELECT count(*), count(late) FROM {ROWS}").fetchall() == [(700, 0)]


def test_a_large_window_is_sampled_the_same_way_each_time(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    inputs = solution_inputs("daily")
    monitoring = inputs.solution.monitoring.model_copy(
        update={"window": "monthly", "drift": inputs.solution.monitoring.drift.model_copy(update={"maximum_rows": MOST})}
    )
    inputs = dataclasses.replace(inputs, solution=inputs.solution.model_copy(update={"monitoring": monitoring}))
    samples = []
    for _ in range(2):
        stage_rows(connection, settings, inputs, windows_from_keys(inputs, ["2020-01-01"]))
        samples.append(sampled_windows(connection, inputs, 1)["2020-01-01"].column("id").to_pylist())
        connection.execute("CREATE OR REPLACE TABLE lake.clinic.predictions AS FROM lake.clinic.predictions ORDER BY random()")
    assert len(samples[0]) == MOST
    assert samples[0] == samples[1]
    assert window_rows(connection, inputs, 1)["2020-01-01"].num_rows == 1500


def test_reports_share_the_rows_until_a_table_changes(
    connect: Callable[[], duckdb.DuckDBPyConnection], connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    inputs = solution_inputs("daily")
    directory = settings.staged_windows_directory / "clinic"

    def known_labels(key: str) -> int:
        report = connect()
        stage_rows(report, settings, inputs, windows_from_keys(inputs, [key]))
        [(labels,)] = report.execute(f"SELECT count(late) FROM {ROWS}").fetchall()
        report.close()
        return labels

    connection.close()
    assert [known_labels(KEYS[0]), known_labels(KEYS[0])] == [630, 630]
    [staged] = directory.iterdir()
    # Another table changes nothing, a label that became known does.
    later = connect()
    later.execute("CREATE TABLE lake.clinic.drift_report AS SELECT 1 AS value")
    later.close()
    assert (known_labels(KEYS[0]), list(directory.iterdir())) == (630, [staged])
    later = connect()
    later.execute("UPDATE lake.clinic.outcomes SET late = 1, matured = true")
    later.close()
    assert known_labels(KEYS[0]) == 700
    # Few files stay, whatever is reported on.
    for key in ("2020-01-13", "2020-01-20", "2020-01-27", "2020-02-03"):
        known_labels(key)
    assert len(list(directory.iterdir())) == 4
    assert staged not in directory.iterdir()


def test_no_predictions_at_all_is_a_failure_that_says_where(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    inputs = solution_inputs("daily")
    with pytest.raises(dg.Failure, match=r"2020-06-01: materialize clinic/predictions"):
        stage_rows(connection, settings, inputs, windows_from_keys(inputs, ["2020-06-01"]))


def test_the_rows_of_a_report_are_as_its_class_declares_them() -> None:
    connection = duckdb.connect()
    sound = DriftRow("2020-01-01", None, "age", "feature", "jensen_shannon", 0.1, 0.2, None, 0.1, 5, False, None, None, 0, None)
    columns = report_columns(row_columns(DriftRow))
    connection.register("found", rows_of_version(to_arrow([sound]), 3))
    validate_report(connection, "clinic.drift_report", report_query("found"), columns)
    assert list(columns) == [name for name, *_ in connection.execute(f"DESCRIBE {report_query('found')}").fetchall()]
    connection.register("found", rows_of_version(to_arrow([sound, dataclasses.replace(sound, kind="novel", value=-0.1)]), 3))
    with pytest.raises(dg.Failure) as raised:
        validate_report(connection, "clinic.drift_report", report_query("found"), columns)
    assert raised.value.description == (
        "clinic.drift_report was not written, its rows are not as its columns are declared: kind: 1 wrong (isin(['feature', 'prediction', "
        "'label', 'all'])) value, such as novel; value: 1 wrong (greater_than_or_equal_to(0)) value, such as -0.1."
    )
