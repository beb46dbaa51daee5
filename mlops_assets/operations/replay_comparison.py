"""The comparison of a replay: the loop, the first model kept frozen, and a model trained anew for every month.

All are evaluated on the same rows: those that the loop predicted, with the labels known now, and the features as they were predicted
with. The monthly models are fitted here with the solution's own configuration, outside the registry, as far as it has none for the
date; what was computed is kept, so that a second comparison fits nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import CONFIGURATION_TAG, TRAINING_DATE_TAG
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.keys import PREDICTIONS
from mlops_assets.core.prediction_columns import BATCH, predictions_array
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import current_snapshot, fingerprint
from mlops_assets.operations.replay_plan import Period
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.predictions.all_predictions import counted_predictions
from mlops_assets.schema.column_names import CHANNEL, MODEL_VERSION, SPLIT
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_bundle
from mlops_assets.training.candidate import current_configuration_hash
from mlops_assets.training.candidate_evaluation import decision_threshold
from mlops_assets.training.fitting import default_estimator, fit_model
from mlops_assets.training.helpful_rows import helpful_rows
from mlops_assets.training.training_frame import draw_earlier_rows, split_query, training_frame

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

    from mlops_assets.feature_store.point_in_time import Frame
    from mlops_assets.serving.bundle import Bundle
    from mlops_assets.serving.contract import Contract


@dataclass(frozen=True)
class MonthlyComparison:
    """The selection metric on the labelled rows of one month, of each way to keep a model."""

    first: str
    rows: int
    loop: float | None
    frozen: float | None
    monthly: float | None


class Comparison:
    """The comparison of one solution over the months of a replay, in order of time."""

    def __init__(self, settings: Settings, solution: str):
        registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
        self._inputs: SolutionInputs = resolve_inputs(declared_solution(solution), registry)
        self._settings = settings
        self._registry = ModelRegistry.from_settings(settings)
        self._cache = settings.home / "replay" / f"{solution}.json"

    @property
    def metric(self) -> str:
        """The metric that is compared."""
        return self._inputs.solution.training.metric

    def compute(self, months: Sequence[Period], report: Callable[[str], None]) -> list[MonthlyComparison]:
        """Evaluate each month with known labels; `report` hears what takes time."""
        compared: list[MonthlyComparison] = []
        first: Bundle | None = None
        with Lake.from_settings(self._settings).connect(read_only=True) as connection:
            for month in months:
                rows = self._rows(connection, month)
                if not rows.num_rows:
                    continue
                first = first or self._bundle(min(rows.column(MODEL_VERSION).to_pylist()))
                evaluate = partial(self._evaluate, rows, first.contract)
                compared.append(
                    MonthlyComparison(
                        first=month.first.isoformat(),
                        rows=rows.num_rows,
                        loop=evaluate(predictions_array(rows)),
                        frozen=evaluate(predictions_array(first.score(rows))),
                        monthly=self._monthly(connection, month, rows, evaluate, report),
                    )
                )
        return compared

    def _rows(self, connection: "duckdb.DuckDBPyConnection", month: Period) -> "pa.Table":
        """The predictions of the month whose label is known, with it."""
        spine, column = self._inputs.solution.spine, quote(self._inputs.solution.partitions.column)
        key, label = quote(spine.key), quote(spine.label)
        inside = f"{column} BETWEEN DATE '{month.first}' AND DATE '{month.last}'"
        return connection.execute(
            f"SELECT p.*, s.{label} FROM ({counted_predictions(connection, self._inputs.table(PREDICTIONS))}) p "
            f"JOIN (SELECT {key}, {label} FROM {lake_name(self._inputs.spine.table)} WHERE {inside} AND {label} IS NOT NULL) s "
            f"USING ({key}) WHERE p.{inside} AND p.{CHANNEL} = '{BATCH}' ORDER BY p.{quote(spine.prediction_time)}, {key}"
        ).to_arrow_table()

    def _evaluate(self, rows: "pa.Table", contract: "Contract", predictions: "np.ndarray") -> float | None:
        from mlops_assets.ml.evaluation import normalize_predictions
        from mlops_assets.ml.weighted_metrics import WeightedMetrics
        from mlops_assets.schema.problem import label_array

        solution = self._inputs.solution
        labels = label_array(rows.column(solution.spine.label), solution.problem)
        evaluated = normalize_predictions(solution.problem, predictions)
        rows = WeightedMetrics(solution.problem, labels, evaluated, contract.classes, decision_threshold(contract))
        return rows.values((self.metric,))[self.metric]

    def _bundle(self, version: int) -> "Bundle":
        return read_bundle(self._registry, self._settings, self._registry.get(self._inputs.name, version))

    def _monthly(
        self,
        connection: "duckdb.DuckDBPyConnection",
        month: Period,
        rows: "pa.Table",
        evaluate: Callable[["np.ndarray"], float | None],
        report: Callable[[str], None],
    ) -> float | None:
        """The metric of the model trained for the first day of the month."""
        day, configuration = month.first, current_configuration_hash(self._inputs, with_budget=True)
        connection.register("evaluated_rows", rows)
        snapshot = current_snapshot(connection)
        frame = training_frame(self._inputs, day, snapshot, draw_earlier_rows(connection, self._inputs, day, snapshot))
        labelled = fingerprint(connection, f"({frame.spine})")
        identity = f"{day} {configuration} {labelled} {fingerprint(connection, 'evaluated_rows')}"
        kept = json.loads(self._cache.read_text()) if self._cache.exists() else {}
        if identity not in kept:
            tags = {TRAINING_DATE_TAG: day.isoformat(), CONFIGURATION_TAG: configuration}
            if found := self._registry.find(self._inputs.name, tags):
                kept[identity] = evaluate(predictions_array(self._bundle(found.version).score(rows)))
            else:
                report(f"fitting the model of {day:%B %Y}")
                kept[identity] = evaluate(self._fit_and_predict(connection, day, frame, rows))
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            self._cache.write_text(json.dumps(kept, indent=2))
        return kept[identity]

    def _fit_and_predict(
        self, connection: "duckdb.DuckDBPyConnection", day: date, frame: "Frame", rows: "pa.Table"
    ) -> "np.ndarray":
        """What a model trained for `day` like those of the registry predicts: same rows, same features, same estimator."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from mlops_assets.ml.matrix import FeatureSchema, to_frame, with_origins
        from mlops_assets.ml.pipeline import predict

        inputs = self._inputs
        parts = [
            connection.execute(
                f"SELECT * FROM ({split_query(inputs, day, rows)}) "
                f"ORDER BY {quote(inputs.solution.spine.prediction_time)}, {quote(inputs.solution.spine.key)}"
            ).to_arrow_table()
            for rows in frame.built(connection)
        ]
        labelled = pa.concat_tables(parts)
        earlier, train, holdout = (
            labelled.filter(pc.equal(labelled.column(SPLIT), split)) for split in ("earlier", "train", "holdout")
        )
        train = helpful_rows(inputs, earlier, train, holdout, day).rows
        if inputs.solution.refits:
            train = pa.concat_tables([train, holdout])
        schema = with_origins(FeatureSchema.from_arrow(train.schema, inputs.features), train)
        pipeline = fit_model(inputs, schema, train, default_estimator(inputs)).pipeline
        return predict(pipeline, to_frame(rows, schema), inputs.solution.problem)
