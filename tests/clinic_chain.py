"""A clinic whose training stages run in the test process, on a real lake and a real MLflow registry. No tests here.

From the first of March on, what happens to its visits is another function of what a model learned than before.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import dagster as dg
import inprocess
import pyarrow as pa
from recorded_reads import new_reads, recorded_reads

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core import check_rules
from mlops_assets.core.keys import ONLINE_FEATURES
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import build_deployment
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.problem import Problem
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.bundle import Bundle
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_bundle
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model
from mlops_assets.training.training_dataset import build_training_dataset

STAGES = ("training_dataset", "model", "evaluation", "deployment")
COLUMNS = {
    "id": "varchar",
    "day": "date",
    "at": "timestamp with time zone",
    "known_at": "timestamp with time zone",
    "age": "double",
}
LABELS = {"binary_classification": "boolean", "multiclass_classification": "varchar"}


def solution_inputs(name: str, problem: Problem) -> SolutionInputs:
    attributes = {
        "name": name,
        "description": "Visits.",
        "owners": ["team:clinic"],
        "problem": problem,
        "partitions": {"column": "day", "start": "2020-01-01", "cadence": "daily", "time_zone": "UTC"},
        "spine": {"model": "visits", "key": "id", "prediction_time": "at", "label": "outcome", "label_time": "known_at"},
        "features": [{"request": ["age"]}],
        "training": {
            "window": "60d",
            "holdout": "7d",
            "metric": "log_loss",
            "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
        },
        # A process that is busy with others is no reason to refuse a version.
        "gates": {"maximum_latency_milliseconds": 10_000},
    }
    spine = DbtModel(
        name="visits",
        table=f"{name}.visits",
        description="",
        columns=COLUMNS | {"outcome": LABELS[problem]},
        column_descriptions={},
        partition_column="day",
    )
    return SolutionInputs(Solution.model_validate(attributes), spine, views=(), request=("age",), derived={})


def visits(problem: Problem) -> str:
    """SQL for 50 visits a day: the outcome follows the age, from March on at another level."""
    odds = "(age - 50) / 15 - CASE WHEN day >= DATE '2020-03-01' THEN 1.5 ELSE 0 END"
    outcome = {
        "binary_classification": f"draw < 1 / (1 + exp(-({odds})))",
        "multiclass_classification": f"CASE WHEN draw < 1 / (1 + exp(-4 * ({odds}))) THEN 'late' "
        f"WHEN draw < 1 / (1 + exp(-4 * ({odds} + 1))) THEN 'in time' ELSE 'early' END",
    }[problem]
    return (
        f"SELECT 'v' || i AS id, day, moment AS \"at\", moment + INTERVAL 1 HOUR AS known_at, age, {outcome} AS outcome FROM ("
        "SELECT i, DATE '2020-01-01' + CAST(i // 50 AS INTEGER) AS day, "
        "TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_days(CAST(i // 50 AS INTEGER)) + to_minutes(28 * (i % 50)) AS moment, "
        "20.0 + hash(i) % 600 / 10 AS age, hash(i + 100000) % 10000 / 10000 AS draw FROM range(50 * 90) r(i))"
    )


def training_assets(inputs: SolutionInputs) -> list[dg.AssetsDefinition]:
    """The training stages of `inputs`."""
    return [build(inputs) for build in (build_training_dataset, build_model, build_evaluation, build_deployment)]


class Registry(ModelRegistry):
    """A registry without a server, which would have pages."""

    def version_url(self, model: RegisteredModel) -> str:
        return f"http://mlflow/{model.version}"

    def run_url(self, run_id: str) -> str:
        return f"http://mlflow/{run_id}"


class Clinic:
    """The assets of a solution for `problem`, with what they run on."""

    def __init__(self, problem: Problem, lake: Lake, registry: ModelRegistry, settings: Settings):
        self.name = f"clinic_{problem.partition('_')[0]}"
        self.inputs = solution_inputs(self.name, problem)
        self.lake, self.registry, self.settings = lake, registry, settings
        self.resources = {"lake": lake, "registry": registry, "settings": settings}
        self.reads = new_reads()
        self.instance = dg.DagsterInstance.ephemeral()
        self.assets = training_assets(self.inputs)
        with lake.connect(read_only=False) as connection:
            lake.replace(connection, table=f"{self.name}.visits", query=visits(problem), partition_range=None, author="test")
        key, parity = self.inputs.key(ONLINE_FEATURES), check_rules.ONLINE_OFFLINE_PARITY.name
        self.instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, parity, passed=True, metadata={}, blocking=True))

    def under(self, **gates: Any) -> "Clinic":
        """The same clinic with other gates."""
        return self.declaring(gates=self.inputs.solution.gates.model_copy(update=gates))

    def declaring(self, **sections: Any) -> "Clinic":
        """The same clinic with other sections in its YAML."""
        clinic = copy(self)
        clinic.inputs = replace(self.inputs, solution=self.inputs.solution.model_copy(update=sections))
        clinic.assets = training_assets(clinic.inputs)
        return clinic

    def run(self, day: str, *stages: str, **configuration: Any) -> dg.ExecuteInProcessResult:
        """Materialize training stages for `day`; `configuration` is that of the model."""
        run_config = {"ops": {f"{self.name}__model": {"config": configuration}}} if configuration else None
        return self.materialize(day, stages, run_config)

    def materialize(
        self,
        day: str,
        stages: Sequence[str],
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run `stages` for `day`, which may fail. The run has `tags`."""
        with recorded_reads(self.reads):
            return dg.materialize(
                self.assets,
                selection=[dg.AssetKey([self.name, stage]) for stage in stages],
                resources=self.resources,
                instance=self.instance,
                partition_key=day,
                run_config=run_config,
                tags=dict(tags or {}),
                raise_on_error=False,
            )

    def train(self, day: str, **configuration: Any) -> RegisteredModel:
        """Return the version that all stages for `day` made the champion."""
        result = self.run(day, *STAGES, **configuration)
        assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))
        champion = self.registry.champion(self.name)
        assert champion is not None
        return champion

    def bundle(self, model: RegisteredModel) -> Bundle:
        return read_bundle(self.registry, self.settings, model)

    def query(self, query: str) -> pa.Table:
        with self.lake.connect(read_only=True) as connection:
            return connection.execute(query.format(name=f"lake.{self.name}")).to_arrow_table()
