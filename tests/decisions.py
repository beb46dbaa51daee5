"""Decisions about the windows of a clinic, on reports and labels in a lake of their own, written as the platform's tables are. No tests here."""

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from bundles import contract, fit_bundle, load, record_of
from msgspec.structs import replace

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.ml.decision_history import EarlierDecision
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.monitoring.known_performance import LoadVersion
from mlops_assets.monitoring.monitored_windows import MonitoredVersion, report_columns
from mlops_assets.monitoring.retraining_decision import decide_window
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.serving.bundle import Bundle
from mlops_assets.serving.contract import Contract
from mlops_assets.stages.inputs import SolutionInputs

WINDOWS = ["2020-03-02", "2020-03-09", "2020-03-16"]
"""Mondays; the last one's decision is made on 2020-03-23."""


class Versions(ModelRegistry):
    """Version 1, trained for the first of March, and version 7 of a segment, both signed; the real registry needs a server."""

    def get(self, solution: str, version: int) -> RegisteredModel:
        record = record_of(solution, version)
        record = replace(record, training=replace(record.training, segment="north" if version == 7 else None))
        tags = record.training.tags | {"bundle_record": record.text} | record.sign(self.signer, "registered")
        return RegisteredModel(solution, version, record.run_id, tags | FORGED)


FORGED: dict[str, str] = {}
"""Tags of every version that somebody wrote in MLflow."""


def inputs() -> SolutionInputs:
    solution = Solution.model_validate(
        {
            "name": "clinic",
            "description": "",
            "owners": ["team:clinic"],
            "problem": "binary_classification",
            "partitions": {"column": "day", "start": "2020-01-01", "end": "2020-06-01"},
            "spine": {"model": "visits", "key": "id", "prediction_time": "asked_at", "label": "late", "label_time": "known_at"},
            "features": [{"request": ["age"]}],
            "training": {"window": "30d", "holdout": "5d", "metric": "roc_auc", "estimator": {"type": "x.Y"}},
            "retraining": {"bad_windows": "2 of 3", "minimum_new_rows": 10, "recalibrate": False},
        }
    )
    spine = DbtModel(
        name="visits", table="clinic.visits", description="", columns={}, column_descriptions={}, partition_column="day"
    )
    return SolutionInputs(solution=solution, spine=spine, views=(), request=("age",), derived={})


INPUTS = inputs()


class Served:
    """Versions of one model of the age, as they were deployed: each with the one before it."""

    def __init__(self, **before: int):
        self._before = {int(name.removeprefix("version_")): version for name, version in before.items()}

    def contract(self, version: int) -> Contract:
        return contract(problem="binary_classification", classes=[0, 1], decision_threshold=0.5, features=AGE)

    def bundle(self, version: int) -> Bundle:
        return age_bundle()

    def before(self, version: int, training_date: date) -> int | None:
        return self._before.get(version)


AGE = [{"name": "age", "type": "double", "minimum": 0, "maximum": 1}]
LABEL_SLOPE = 4
"""How much the logarithm of the odds of being late grows with the age, from -2 at 0 on."""


@cache
def age_bundle() -> Bundle:
    """A model of the age that is as good as any."""
    random = np.random.default_rng(1)
    age = random.random(4000)
    late = random.random(4000) < true_scores(age)
    fitted = fit_bundle(
        pa.table({"age": age}),
        late.astype(np.int64),
        schema=FeatureSchema(numeric=("age",), categorical=()),
        problem="binary_classification",
        estimator=PipelineStep("sklearn.linear_model.LogisticRegression", {}),
        requests=[{"id": "1", "age": 0.5}],
    )
    with TemporaryDirectory() as folder:
        return load(fitted.write(Path(folder) / "clinic" / "1"))


def true_scores(age: np.ndarray) -> np.ndarray:
    """The probability that a visitor of an age is late."""
    return 1 / (1 + np.exp(2 - LABEL_SLOPE * age))


def decide(
    connection: duckdb.DuckDBPyConnection,
    window: str,
    *,
    load: LoadVersion,
    served: Served | None = None,
    earlier: Sequence[EarlierDecision] = (),
    clinic: SolutionInputs = INPUTS,
) -> dict[str, Any]:
    """Decide about a window with what is in the lake; `load` gives the reference of a version."""
    return decide_window(
        connection,
        Versions("", "", Signer(Path("signing_key"))),
        clinic,
        window=date.fromisoformat(window),
        earlier=earlier,
        running=None,
        load=load,
        versions=served or Served(),
    )


def no_reference(version: int) -> MonitoredVersion:
    """Raise: where the reports knew the labels of the day, nothing is computed again."""
    raise AssertionError(f"version {version}: its reports knew the labels of the day, and nothing is computed again")


def empty_lake() -> duckdb.DuckDBPyConnection:
    """Nobody drifted, version 1 was evaluated, and nothing else is known."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; CREATE SCHEMA lake.clinic")
    connection.execute("CREATE TABLE lake.clinic.evaluation AS SELECT DATE '2020-03-01' AS training_date, 1 AS model_version")
    connection.execute(
        "CREATE TABLE lake.clinic.drift_report (window_start DATE, model_version INTEGER, slice VARCHAR, feature VARCHAR, "
        "kind VARCHAR, alert BOOLEAN)"
    )
    columns = report_columns(row_columns(PerformanceRow))
    typed = ", ".join(f"{name} {column.type}" for name, column in columns.items())
    connection.execute(f"CREATE TABLE lake.clinic.performance_report ({typed})")
    # The commits of a DuckLake; without any, the last training counts as made with other rows.
    connection.execute(
        "CREATE MACRO lake.snapshots() AS TABLE SELECT 0 AS snapshot_id, now() AS snapshot_time, '' AS author, '' AS commit_extra_info"
    )
    return connection


def report(
    connection: duckdb.DuckDBPyConnection,
    window: str,
    *,
    version: int,
    alert: bool,
    part: str | None = None,
    made_on: date = date(2020, 3, 23),
) -> None:
    """Write the reports of a window as they were `made_on` a day. A label is known a day after its visit."""
    complete = made_on > date.fromisoformat(window) + timedelta(days=7)
    connection.execute(
        "DELETE FROM lake.clinic.performance_report WHERE window_start = ? AND model_version = ? AND slice IS NOT DISTINCT FROM ?",
        [window, version, part],
    )
    values = [window, version, part, 0.7, 0.6 if alert else 0.8, 0.75, alert, complete, 168 if complete else 145]
    connection.execute(
        "INSERT INTO lake.clinic.performance_report BY NAME "
        "SELECT * FROM (VALUES (CAST(? AS DATE), ?, ?, 'roc_auc', ?, ?, 0.8, ?, ?, ?, 168, ?)) "
        "t(window_start, model_version, slice, metric, estimated, realised, reference, threshold, alert, complete, rows, matured_rows)",
        values,
    )
    report_no_drift(connection, window, version=version, part=part)


def report_no_drift(connection: duckdb.DuckDBPyConnection, window: str, *, version: int, part: str | None) -> None:
    connection.execute("INSERT INTO lake.clinic.drift_report VALUES (?, ?, ?, 'age', 'feature', false)", [window, version, part])
