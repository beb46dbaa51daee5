"""The lineage of one prediction back to its raw rows, and the contributions of its features."""

import json
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlops_assets.clients.bundle_record import BundleRecord, EvidenceError
from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import ORIGIN_TAG, RegisteredModel
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import ALL_PREDICTIONS, PREDICTION_LOG, PREDICTIONS, stage_key
from mlops_assets.core.prediction_columns import BATCH, CHALLENGER_ROLE, predictions_array
from mlops_assets.core.settings import Settings
from mlops_assets.lake.datasets import RecordedDataset, recorded_datasets
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import literal, quote
from mlops_assets.operations.deployments import deployment_at, deployment_history
from mlops_assets.operations.row_origins import RowOrigins
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.predictions.all_predictions import all_predictions
from mlops_assets.schema.column_names import (
    CHANNEL,
    COUNTED,
    FEATURE_VIEWS,
    GENERATION,
    MODEL_VERSION,
    OUTPUTS,
    PREDICTION_ID,
    ROLE,
    SCORED_BECAUSE,
    SCORED_BY,
    SERVED_AT,
    SOURCE_SNAPSHOT,
    TRAINED_ON,
    VIEW_FLAGS,
    VIEW_SNAPSHOTS,
)
from mlops_assets.training.bundle_reading import fitted_version, read_bundle

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.contributions import Explanation
    from mlops_assets.schema.solution import Solution
    from mlops_assets.serving.contract import Segment

_BACKGROUND_ROWS = 500
_ORDERS = 200
_SEED = 0


class PredictionLineage:
    """What is known of one prediction. Raises StackError when the lake holds no prediction of that id."""

    def __init__(self, settings: Settings, prediction_id: str):
        self.settings = settings
        self.prediction_id = prediction_id
        self.solution_name = prediction_id.partition(":")[0]
        self.client = DagsterClient.from_settings(settings)
        self.registry = ModelRegistry.from_settings(settings)
        self.row = self._read_row()

    @cached_property
    def solution(self) -> "Solution":
        """The solution's YAML. Raises StackError when it has none any more."""
        return declared_solution(self.solution_name)

    @cached_property
    def model(self) -> RegisteredModel:
        """The version that made the prediction."""
        return self.registry.get(self.solution_name, int(self.values[MODEL_VERSION]))

    @cached_property
    def record(self) -> BundleRecord:
        """The signed facts of that version. Raises StackError when they were changed in MLflow: the chain would lead elsewhere."""
        try:
            return self.registry.registered_record(self.model)
        except EvidenceError as error:
            raise StackError(str(error), remedy=f"The version in MLflow: {self.registry.version_url(self.model)}") from error

    @cached_property
    def values(self) -> dict[str, Any]:
        """The stored prediction, column by column."""
        return dict(self.row.to_pylist()[0])

    def trace(self) -> dict[str, Any]:
        """The chain from the prediction to the raw partitions, each link with its page in Dagster or MLflow. Values suit JSON."""
        origins = RowOrigins(self.settings, self.client, self.solution, self.values)
        partition = str(self.values[self.solution.partitions.column])
        training_date = self.record.training.training_date.isoformat()
        dataset, expired = self._dataset(), origins.expired()
        return {
            "prediction": self._prediction(partition),
            **({"expired": expired} if expired else {}),
            "deployment": self._deployment(),
            "model_version": {
                "version": self.model.version,
                "mlflow": self.registry.version_url(self.model),
                "tags": dict(sorted(self.model.tags.items())),
            },
            **self._base(),
            **({"copied_from": json.loads(origin)} if (origin := self.model.tags.get(ORIGIN_TAG)) else {}),
            "training_run": {
                "dagster": self.client.run_url(self.model.tags["dagster_run_id"]),
                "mlflow": self.registry.run_url(self.model.run_id),
                "mlflow_run_id": self.model.run_id,
            },
            "dataset": {
                "fingerprint": self.record.training.dataset_fingerprint,
                "training_date": training_date,
                "source_snapshot": dataset.source_snapshot if dataset else None,
                "dagster": self.client.asset_url(f"{self.solution_name}/training_dataset", training_date),
                "rebuild": f"mlops dataset rebuild {self.solution_name} {self.record.training.dataset_fingerprint}",
            },
            "feature_views": origins.feature_views(),
            "raw_partitions": origins.raw_partitions(dataset),
        }

    def explain(self) -> "Explanation":
        """The contribution of each feature to the prediction, against rows of the version's own hold-out.

        Raises StackError when those rows are gone, or the bundle does not give the stored prediction again.
        """
        from mlops_assets.ml.contributions import explain_row
        from mlops_assets.serving.bundle import BundleError

        try:
            bundle = read_bundle(self.registry, self.settings, self.model)
        except (EvidenceError, BundleError) as error:
            raise StackError(str(error), remedy=f"mlops trace {self.prediction_id}") from error
        names = list(bundle.contract.feature_schema.names)
        row = self.row.select(names)
        scored = bundle.score(row)
        column, predicted_class = 0, None
        if "probabilities" in scored.column_names:
            predicted_class = scored.column("predicted_label")[0].as_py()
            column = bundle.contract.classes.index(predicted_class)

        def predict(table: "pa.Table") -> Any:
            predictions = predictions_array(bundle.score(table))
            return predictions[:, column] if predictions.ndim == 2 else predictions

        explanation = explain_row(predict, row, self._background(names, bundle.contract.segment), orders=_ORDERS, seed=_SEED)
        stored = self.values["value"] if "value" in self.values else self.values["score"]
        if abs(explanation.prediction - stored) > 1e-5 * max(1.0, abs(stored)):
            raise StackError(
                f"The bundle of version {self.model.version} gives {explanation.prediction}, not the stored {stored}.",
                remedy=f"mlops trace {self.prediction_id}",
            )
        return replace(explanation, predicted_class=None if predicted_class is None else str(predicted_class))

    def _read_row(self) -> "pa.Table":
        with Lake.from_settings(self.settings).connect(read_only=True) as connection:
            if (predictions := all_predictions(connection, self.solution_name, every_generation=True)) is None:
                raise StackError(
                    f"{self.prediction_id!r} names no solution with predictions.",
                    remedy="An id is <solution>:<key>:<model version>, scored again with :g<generation> behind it, or "
                    "<solution>:<channel>:<request id>.",
                )
            row = connection.execute(
                f"SELECT * FROM {predictions} WHERE {PREDICTION_ID} = {literal(self.prediction_id)}"
            ).to_arrow_table()
        if row.num_rows != 1:
            example = f'mlops sql "SELECT {PREDICTION_ID} FROM {self.solution_name}.{ALL_PREDICTIONS} LIMIT 5"'
            raise StackError(
                f"The lake holds no prediction {self.prediction_id!r} (those of the servers come with the next run of "
                f"{self.solution_name}/prediction_log).",
                remedy=f"Ids that exist: {example}",
            )
        return row

    def _background(self, names: list[str], segment: "Segment | None") -> "pa.Table":
        table, training_date = f"{self.solution_name}.training_dataset", self.record.training.training_date
        columns = ", ".join(map(quote, names))
        inside = f"CAST({quote(segment.column)} AS VARCHAR) = {literal(segment.value)}" if segment else "true"
        with Lake.from_settings(self.settings).connect(read_only=True) as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM lake.{table} WHERE training_date = DATE '{training_date}' AND split = 'holdout' "
                f"AND {inside} ORDER BY hash({quote(self.solution.spine.key)}) LIMIT {_BACKGROUND_ROWS}"
            ).to_arrow_table()
        if not rows.num_rows:
            raise StackError(
                f"{table} has no hold-out rows of {training_date} to compare with.",
                remedy=f"Materialize {self.solution_name}/training_dataset for {training_date}.",
            )
        return rows

    def _prediction(self, partition: str) -> dict[str, Any]:
        spine = self.solution.spine
        of_the_row = (PREDICTION_ID, CHANNEL, spine.key, spine.prediction_time, SERVED_AT, *OUTPUTS)
        of_the_scoring = (GENERATION, COUNTED, TRAINED_ON, SCORED_BY, SCORED_BECAUSE)
        of_the_features = (FEATURE_VIEWS, VIEW_FLAGS, SOURCE_SNAPSHOT, VIEW_SNAPSHOTS)
        # What another channel would have is null.
        found = {
            name: value
            for name in (*of_the_row, *of_the_scoring, *of_the_features)
            if (value := self.values.get(name)) is not None
        }
        return {**found, "partition": partition, "dagster": self.client.asset_url(self._asset(), partition)}

    def _asset(self) -> str:
        """Key of the asset that wrote the prediction."""
        stage = PREDICTIONS if self.values.get(CHANNEL) in (None, BATCH) else PREDICTION_LOG
        return stage_key(self.solution_name, stage).to_user_string()

    def _deployment(self) -> dict[str, Any] | None:
        """The deployment under which the version answered; of a prediction of the batch, whose moment is not known, its newest.

        None for a challenger, and when an alias moved by hand made the version predict and that is not recorded yet.
        """
        if self.values.get(ROLE) == CHALLENGER_ROLE:
            return None
        deployments = deployment_history(self.client, self.solution_name, self.record.training.segment)
        found = deployment_at(deployments, self.model.version, self.values.get(SERVED_AT))
        return asdict(found) if found else None

    def _base(self) -> dict[str, Any]:
        """The fitted version whose recalibration the version is; nothing when it was fitted itself."""
        if self.record.training.recalibrates is None:
            return {}
        base = fitted_version(self.registry, self.model)
        training = self.registry.registered_record(base).training
        link = {
            "version": base.version,
            "mlflow": self.registry.version_url(base),
            "training_date": training.training_date.isoformat(),
            "rebuild": f"mlops dataset rebuild {self.solution_name} {training.dataset_fingerprint}",
        }
        return {"recalibrates": link}

    def _dataset(self) -> RecordedDataset | None:
        """What the lake's history recorded of the dataset; None when those snapshots have expired."""
        with Lake.from_settings(self.settings).connect(read_only=True) as connection:
            datasets = recorded_datasets(connection, f"{self.solution_name}.training_dataset")
        fingerprint = self.record.training.dataset_fingerprint
        return next((each for each in reversed(datasets) if each.fingerprint == fingerprint), None)
