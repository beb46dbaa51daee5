"""`outcomes`: predictions with the labels known on the clock of the data. One partition a period."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES, PartitionCheckResult
from mlops_assets.core.keys import OUTCOMES
from mlops_assets.core.missing_values import is_infinite
from mlops_assets.core.prediction_columns import PREDICTION_DESCRIPTIONS, predictions_array
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import lake_name, quote, sql_moment
from mlops_assets.lake.tables import column_types
from mlops_assets.predictions.all_predictions import require_predictions
from mlops_assets.schema.column_names import CHANNEL, MATURED, MODEL_VERSION, OUTPUTS, PREDICTION_ID, internal
from mlops_assets.stages.clock import data_clock
from mlops_assets.stages.column_lineage import outcome_lineage
from mlops_assets.stages.execution import (
    RETRIES,
    partition_range,
    record_partitions,
    record_range_metadata,
    rows_by_partition_key,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.all_evaluations import all_evaluations
from mlops_assets.training.bundle_reading import read_bundle
from mlops_assets.training.candidate_evaluation import MINIMUM_SLICE_ROWS, decision_threshold
from mlops_assets.training.evaluation_page import draw_plots, plot_metadata, result_metadata

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.serving.bundle import Bundle

_EXPECTED_MATURED = 0.5


def build_outcomes(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The outcomes of one solution's predictions."""
    key = inputs.key(OUTCOMES)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description="Predictions joined to their matured labels, with the realised performance.",
        kinds={"duckdb"},
        **inputs.asset_attributes(OUTCOMES),
        partitions_def=inputs.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[*inputs.predictions, *inputs.evaluations, inputs.spine_key],
        check_specs=[check_rules.LABELS_MATURED.partitioned_spec(key, inputs.partitions)],
        retry_policy=RETRIES,
        code_version="3",
    )
    @step
    def outcomes(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult]:
        window = partition_range(context, solution.partitions.column)
        table = inputs.table(OUTCOMES)
        with lake.connect(read_only=False) as connection:
            as_of = data_clock(connection, inputs)
            written = lake.replace(
                connection,
                table=table,
                query=_joined(connection, inputs, window, as_of),
                partition_range=window,
                author=context.run.run_id,
            )
            matured = connection.execute(
                f"FROM lake.{table} t WHERE {window.predicate('t')} AND {MATURED} ORDER BY {quote(solution.spine.key)}"
            ).to_arrow_table()
            reference = connection.execute(
                f"SELECT {quote(solution.spine.label)} FROM {all_evaluations(connection, inputs.name)} WHERE {MODEL_VERSION} = "
                f"(SELECT max({MODEL_VERSION}) FROM lake.{table} t WHERE {window.predicate('t')})"
            ).to_arrow_table()
            unlabelled = _without_label(connection, inputs, window)
            schema = table_schema(
                connection,
                f"lake.{table}",
                inputs.column_descriptions | PREDICTION_DESCRIPTIONS | {MATURED: "Whether the label is known."},
            )
        record_partitions(context, written.rows_by_partition, written.hashes_by_partition)
        columns = (column.name for column in schema.columns)
        record_range_metadata(context, outcome_lineage(inputs, columns))
        predictions = rows_by_partition_key(context.partition_keys, written.rows_by_partition)
        by_partition = rows_by_partition_key(context.partition_keys, Counter(map(str, matured.column(window.column).to_pylist())))
        metadata = {
            **written_metadata(written),
            "dagster/column_schema": schema,
            "matured_rows": matured.num_rows,
            "as_of": dg.MetadataValue.timestamp(as_of),
        }
        if matured.num_rows:
            newest = registry.get(inputs.name, max(matured.column(MODEL_VERSION).to_pylist()))
            bundle = read_bundle(registry, settings, newest)
            result, plots = _realised(inputs, bundle, matured, reference)
            record_range_metadata(context, result_metadata(result) | plot_metadata(plots))
        yield dg.MaterializeResult(
            metadata=metadata,
            check_results=[
                _labels_matured(inputs, name, matured=by_partition[name], predictions=predictions[name], unlabelled=unlabelled)
                for name in context.partition_keys
            ],
        )

    return outcomes


def _without_label(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange) -> dict[str, list[str]]:
    """A few predictions of each date whose label is not known."""
    examples = connection.execute(
        f"SELECT CAST({quote(window.column)} AS VARCHAR), arg_min({PREDICTION_ID}, {PREDICTION_ID}, {MOST_EXAMPLES}) "
        f"FROM lake.{inputs.table(OUTCOMES)} t WHERE {window.predicate('t')} AND NOT {MATURED} GROUP BY 1"
    )
    return dict(examples.fetchall())


def _labels_matured(
    inputs: SolutionInputs, partition: str, *, matured: int, predictions: int, unlabelled: Mapping[str, list[str]]
) -> PartitionCheckResult:
    # A partition without predictions lacks no label; `complete` is about those.
    share = matured / predictions if predictions else 1.0
    result = check_rules.LABELS_MATURED.result(
        inputs.key(OUTCOMES),
        passed=share >= _EXPECTED_MATURED,
        metadata={
            "share": share,
            "expected": _EXPECTED_MATURED,
            "matured": matured,
            "predictions": predictions,
            "examples": dg.MetadataValue.json(unlabelled.get(partition, [])),
        },
        description=None if share >= _EXPECTED_MATURED else f"{matured} of {predictions} predictions have a label",
    )
    return PartitionCheckResult.from_result(result, partition)


def _joined(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, as_of: datetime) -> str:
    """SQL for the predictions of `window` with their labels; a label that becomes known after `as_of` is still null.

    A label is found by the key of the spine. The partition may be another one: that of a request is the date on which it was made
    when it gives none. A key that the spine has in several partitions means the row that is nearest.
    """
    spine = inputs.solution.spine
    predictions = require_predictions(connection, inputs.name)
    present = column_types(connection, predictions)
    outputs = [name for name in OUTPUTS if name in present]
    selected = [
        PREDICTION_ID,
        CHANNEL,
        MODEL_VERSION,
        window.column,
        spine.key,
        spine.prediction_time,
        *inputs.solution.gates.slices,
        *outputs,
    ]
    predicted = ", ".join(f"p.{quote(name)}" for name in dict.fromkeys(selected))
    key, label, label_time = quote(spine.key), quote(spine.label), quote(spine.label_time)
    partition, of_spine = quote(window.column), internal("partition")
    # An infinite value is none that a prediction could be compared with.
    finite = f" AND NOT {is_infinite(label)}" if inputs.solution.problem == "regression" else ""
    known = f"{inputs.is_labelled}{finite} AND {label_time} <= {sql_moment(as_of)}"
    return (
        f"SELECT {predicted}, s.{label}, s.{label_time}, s.{label} IS NOT NULL AS {MATURED} "
        f"FROM {predictions} p "
        f"LEFT JOIN (SELECT {key}, {label}, {label_time}, {partition} AS {of_spine} FROM {lake_name(inputs.spine.table)} WHERE {known}) s "
        f"USING ({key}) WHERE {window.predicate('p')} "
        f"QUALIFY row_number() OVER (PARTITION BY p.{PREDICTION_ID} ORDER BY abs(s.{of_spine} - p.{partition}), s.{of_spine}) = 1"
    )


def _realised(
    inputs: SolutionInputs, bundle: "Bundle", matured: "pa.Table", reference: "pa.Table"
) -> "tuple[Evaluation, dict[str, bytes]]":
    """The metrics of the matured predictions, beside a constant prediction from the hold-out labels `reference`."""
    from mlops_assets.ml.evaluation import evaluate
    from mlops_assets.schema.problem import label_array

    solution, contract = inputs.solution, bundle.contract
    labels = label_array(matured.column(solution.spine.label), solution.problem)
    result = evaluate(
        problem=solution.problem,
        metrics=solution.metrics,
        labels=labels,
        predictions=predictions_array(matured),
        training_labels=label_array(reference.column(solution.spine.label), solution.problem),
        classes=contract.classes,
        threshold=decision_threshold(contract),
        slices=matured.select(solution.gates.slices),
        minimum_slice_rows=MINIMUM_SLICE_ROWS,
        resampling=None,
    )
    return result, draw_plots(result, labels, matured, contract.classes, metric=solution.training.metric)
