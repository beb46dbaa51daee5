"""A report of a window whose labels came by and by; that a whole decision is the same in retrospect: test_retraining_decision.py."""

from datetime import UTC, datetime, timedelta
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from bundles import contract
from sklearn.metrics import roc_auc_score

from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.ml.reference import Reference
from mlops_assets.ml.reference_windows import NO_VARIATION
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.ml.usual_drift import NOTHING_USUAL
from mlops_assets.monitoring.known_performance import performance_as_known
from mlops_assets.monitoring.monitored_windows import MonitoredVersion
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.monitoring_reference import VersionReference

MONDAY = datetime(2020, 3, 2, tzinfo=UTC)
ROWS = 168
LATE = np.random.default_rng(1).random(ROWS) < 0.4
SCORES = np.clip(0.3 + 0.3 * LATE + np.random.default_rng(2).normal(0, 0.2, ROWS), 0, 1)
INPUTS = SolutionInputs(
    solution=Solution.model_validate(
        {
            "name": "clinic",
            "description": "",
            "owners": ["team:clinic"],
            "problem": "binary_classification",
            "partitions": {"column": "day", "start": "2020-01-01", "end": "2020-04-01"},
            "spine": {"model": "visits", "key": "id", "prediction_time": "asked_at", "label": "late", "label_time": "known_at"},
            "features": [{"request": ["age"]}],
            "training": {"window": "30d", "holdout": "5d", "metric": "roc_auc", "estimator": {"type": "x.Y"}},
            "monitoring": {"performance": {"label_delay": "2d"}},
        }
    ),
    spine=DbtModel(
        name="visits", table="clinic.visits", description="", columns={}, column_descriptions={}, partition_column="day"
    ),
    views=(),
    request=("age",),
    derived={},
)


@pytest.fixture
def lake() -> duckdb.DuckDBPyConnection:
    """A visit an hour for a week, each label known two days later; today all of them are."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; CREATE SCHEMA lake.clinic")
    asked = [MONDAY + timedelta(hours=number) for number in range(ROWS)]
    outcomes = pa.table(
        {
            "prediction_id": range(ROWS),
            "day": [moment.date() for moment in asked],
            "asked_at": asked,
            "late": LATE,
            "known_at": [moment + timedelta(days=2) for moment in asked],
            "matured": [True] * ROWS,
            "model_version": [1] * ROWS,
            "score": SCORES,
        }
    )
    connection.register("rows", outcomes)
    connection.execute("CREATE TABLE lake.clinic.outcomes AS FROM rows")
    return connection


def reference(version: int) -> MonitoredVersion:
    described = contract(problem="binary_classification", classes=[0, 1], decision_threshold=0.5, version=version)
    rows = pa.table({"score": SCORES, "late": LATE.astype(int)})
    return MonitoredVersion(
        version, described, VersionReference(cast("Reference", None), 5, rows, NO_VARIATION, NOTHING_USUAL, {}, {})
    )


REPORTED = PerformanceRow(
    **dict.fromkeys(row_columns(PerformanceRow))
    | {"window": "2020-03-02", "metric": "roc_auc", "rows": ROWS, "matured_rows": ROWS, "complete": True, "realised": 0.123}
)


def known_on(lake: duckdb.DuckDBPyConnection, day: int) -> PerformanceRow:
    moment = MONDAY + timedelta(days=day)
    [row] = performance_as_known(lake, INPUTS, [REPORTED], version=1, moment=moment, load=reference)
    return row


def test_a_label_counts_from_the_moment_it_was_known(lake: duckdb.DuckDBPyConnection) -> None:
    row = known_on(lake, 7)
    known = 5 * 24 + 1
    assert (row.matured_rows, row.rows, row.complete) == (known, ROWS, False)
    assert row.realised == pytest.approx(roc_auc_score(LATE[:known], SCORES[:known]))


def test_before_the_first_label_nothing_is_realised(lake: duckdb.DuckDBPyConnection) -> None:
    row = known_on(lake, 1)
    assert (row.matured_rows, row.realised, row.alert) == (0, None, False)
    lake.execute("DROP TABLE lake.clinic.outcomes")
    assert known_on(lake, 7) == row


def test_a_report_that_knew_the_same_labels_is_taken_as_it_is(lake: duckdb.DuckDBPyConnection) -> None:
    assert known_on(lake, 9) == REPORTED
