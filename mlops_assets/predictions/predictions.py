"""The asset `predictions`: every row of the spine scored by the champion, with the features it read.

What was predicted stays: a row that is scored again with another result gets one more generation beside the former ones.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core import check_rules
from mlops_assets.core.keys import PREDICTIONS
from mlops_assets.core.prediction_columns import BATCH, CHAMPION_ROLE, PREDICTION_DESCRIPTIONS, prediction_columns
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import load_champions
from mlops_assets.feature_store.point_in_time import SelectedView, is_fresh
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.predictions.all_predictions import update_view
from mlops_assets.predictions.input_arrival import INPUTS_ARRIVED, check_inputs_arrived
from mlops_assets.schema.column_names import (
    CHANNEL,
    COUNTED,
    FEATURE_VIEWS,
    GENERATION,
    MODEL_VERSION,
    PREDICTION_ID,
    ROLE,
    SCORED_BECAUSE,
    SCORED_BY,
    SOURCE_SNAPSHOT,
    TRAINED_ON,
    VIEW_FLAGS,
)
from mlops_assets.stages.column_lineage import frame_lineage
from mlops_assets.stages.execution import (
    RETRIES,
    partition_range,
    record_partitions,
    record_range_metadata,
    require_inputs,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import fitted_version
from mlops_assets.training.training_dataset import labelled_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.segments import Champions
from mlops_assets.predictions.prediction_checks import check_complete, check_finite, check_fresh_features

BATCH_ROWS = 20_000
"""Rows that are scored at once."""

PART_VALUES = 30_000_000
"""Feature values that are joined at once: beside them the rows that were scored before wait to be written."""


class ScoringConfig(dg.Config):
    """Run configuration: who asks and why, and whether the new predictions of rows that have some count in the place of those."""

    actor: str = "dagster"
    reason: str | None = None
    supersede: bool = False


def build_predictions(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The batch predictions of one solution."""
    key = inputs.key(PREDICTIONS)
    rules_of_asset = [check_rules.COMPLETE, check_rules.FINITE, check_rules.FRESH_FEATURES, INPUTS_ARRIVED]

    @dg.asset(
        key=key,
        description="Rows of the spine scored by the champion, with the features as known at prediction time.",
        kinds={"onnx", "duckdb"},
        **inputs.asset_attributes(PREDICTIONS),
        partitions_def=inputs.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            *(dg.AssetDep(deployment, partition_mapping=dg.AllPartitionMapping()) for deployment in inputs.deployments),
            *inputs.upstream_keys,
        ],
        check_specs=[rule.partitioned_spec(key, inputs.partitions) for rule in rules_of_asset],
        retry_policy=RETRIES,
        code_version="2",
    )
    @step
    def predictions(
        context: dg.AssetExecutionContext,
        config: ScoringConfig,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult]:
        predicting = load_champions(context.instance, registry, settings, inputs)
        training_dates = {version: training_dates_of(registry, inputs, version) for version in predicting.versions}
        window = partition_range(context, inputs.solution.partitions.column)
        with lake.connect(read_only=False) as connection:
            require_inputs(connection, inputs)
            with scored_rows(
                connection, inputs, predicting, training_dates, first=window.start, end=window.end, config=config
            ) as query:
                written = lake.add_generation(
                    connection,
                    table=inputs.table(PREDICTIONS),
                    query=query,
                    key=(inputs.solution.spine.key, window.column),
                    identifier=PREDICTION_ID,
                    partition_range=window,
                    author=context.run.run_id,
                    supersede=config.supersede,
                )
            update_view(lake, connection, inputs.name)
            schema = table_schema(
                connection, f"lake.{inputs.table(PREDICTIONS)}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS
            )
            checks = [
                *check_complete(connection, inputs, window, keys=context.partition_keys),
                *check_finite(connection, inputs, window, keys=context.partition_keys),
                *check_fresh_features(connection, inputs, window, keys=context.partition_keys),
                *check_inputs_arrived(
                    context.instance, context.job_def.asset_layer.asset_graph, inputs, keys=context.partition_keys
                ),
            ]
        record_partitions(context, written.rows_by_partition, written.hashes_by_partition)
        record_range_metadata(context, frame_lineage(inputs, (column.name for column in schema.columns)))
        yield dg.MaterializeResult(
            metadata={
                **written_metadata(written),
                "dagster/column_schema": schema,
                "rows_scored_first": written.first,
                "rows_scored_again": written.again,
                MODEL_VERSION: predicting.default.contract.version,
                **_segments(predicting),
                "mlflow": dg.MetadataValue.url(f"{registry.url}/#/models/{inputs.name}"),
            },
            check_results=checks,
        )

    return predictions


def training_dates_of(registry: ModelRegistry, inputs: SolutionInputs, version: int) -> frozenset[date]:
    """Return the training date of a version, and that of the fitted one whose recalibration it is: it has learned from both."""
    model = registry.get(inputs.name, version)
    return frozenset(
        registry.registered_record(learned).training.training_date for learned in (model, fitted_version(registry, model))
    )


def _segments(predicting: "Champions") -> dict[str, Any]:
    """The champions of segments, for the asset's page."""
    versions = {
        bundle.contract.segment.value: bundle.contract.version for bundle in predicting.segments if bundle.contract.segment
    }
    return {"segments": dg.MetadataValue.json(versions)} if versions else {}


@contextmanager
def scored_rows(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    predicting: "Champions",
    training_dates: Mapping[int, Collection[date]],
    *,
    first: date,
    end: date,
    config: ScoringConfig,
) -> Iterator[str]:
    """SQL for the rows of the spine's partitions in `[first, end)` with their predictions, to be run once inside the `with` block.

    They are read, scored and handed on in batches of `BATCH_ROWS`: memory does not grow with the partitions. `training_dates` are those of
    the versions of `predicting`.
    """
    import pyarrow as pa

    snapshot = current_snapshot(connection)
    frame = inputs.frame(first=first, end=end, condition=inputs.is_predicted, labelled=False, snapshot=snapshot)
    # A connection of its own: one that is being read from can do nothing else.
    with connection.cursor() as reading:
        reading.execute("SET TimeZone = 'UTC'")
        parts = (reading.execute(query).to_arrow_reader(BATCH_ROWS) for query in frame.built(reading, PART_VALUES))
        first_part = next(parts)
        empty = _with_predictions(first_part.schema.empty_table(), predicting)
        batches = (
            scored
            for part in chain([first_part], parts)
            for batch in part
            for scored in _with_predictions(pa.Table.from_batches([batch]), predicting).combine_chunks().to_batches()
        )
        connection.register("scored_rows", pa.RecordBatchReader.from_batches(empty.schema, batches))
        trained_on = _trained_on(inputs, training_dates, first=first, end=end, snapshot=snapshot)
        yield _rows_query(inputs, predicting, trained_on, snapshot, config)


def _with_predictions(frame: "pa.Table", predicting: "Champions") -> "pa.Table":
    scored = predicting.score(frame)
    for name in (MODEL_VERSION, *prediction_columns(scored)):
        frame = frame.append_column(name, scored.column(name))
    return frame


def _trained_on(
    inputs: SolutionInputs, training_dates: Mapping[int, Collection[date]], *, first: date, end: date, snapshot: int
) -> str:
    """SQL that is true for a row that its version was trained on, by its training dates and the label that was known then.

    Without time the batch predicts no such row.
    """
    key, partition = quote(inputs.solution.spine.key), quote(inputs.solution.partitions.column)
    trained = [
        f"SELECT {key}, {partition}, {version} FROM {lake_name(inputs.spine.table)} AT (VERSION => {snapshot}) "
        f"WHERE {partition} >= DATE '{first}' AND {partition} < DATE '{end}' AND {labelled_rows(inputs, training_date)}"
        for version, dates in training_dates.items()
        for training_date in sorted(dates)
        if inputs.solution.spine.has_time and first < training_date
    ]
    return f"({key}, {partition}, {MODEL_VERSION}) IN ({' UNION ALL '.join(trained)})" if trained else "false"


def _rows_query(inputs: SolutionInputs, predicting: "Champions", trained_on: str, snapshot: int, config: ScoringConfig) -> str:
    spine, partition = inputs.solution.spine, quote(inputs.solution.partitions.column)
    # Without time a row is predicted again in each snapshot.
    snapshot_of_row = "" if spine.has_time else f" || ':' || CAST({partition} AS VARCHAR)"
    identifier = f"'{inputs.name}:' || CAST({quote(spine.key)} AS VARCHAR){snapshot_of_row} || ':' || {MODEL_VERSION}"
    views = " ".join(
        f"WHEN {bundle.contract.version} THEN "
        + literal(json.dumps({view.name: view.version for view in bundle.contract.feature_views}))
        for bundle in predicting.bundles
    )
    reason = "NULL" if config.reason is None else literal(config.reason)
    return (
        f"SELECT *, NOT {TRAINED_ON} AS {COUNTED} FROM ("
        f"SELECT {identifier} AS {PREDICTION_ID}, '{BATCH}' AS {CHANNEL}, '{CHAMPION_ROLE}' AS {ROLE}, "
        f"CAST({MODEL_VERSION} AS INTEGER) AS {MODEL_VERSION}, CASE {MODEL_VERSION} {views} END AS {FEATURE_VIEWS}, "
        f"{_view_flags(inputs)} AS {VIEW_FLAGS}, {snapshot} AS {SOURCE_SNAPSHOT}, * EXCLUDE ({MODEL_VERSION}), "
        f"CAST(1 AS INTEGER) AS {GENERATION}, {trained_on} AS {TRAINED_ON}, {literal(config.actor)} AS {SCORED_BY}, "
        f"CAST({reason} AS VARCHAR) AS {SCORED_BECAUSE} FROM scored_rows)"
    )


def _view_flags(inputs: SolutionInputs) -> str:
    """SQL for what the online store would say of the values of each view, as a JSON object."""
    prediction_time = quote(inputs.solution.spine.prediction_time)
    flags = ", ".join(f"{literal(chosen.view.name)}, {_flag(chosen, prediction_time)}" for chosen in inputs.views)
    return f"CAST(json_object({flags}) AS VARCHAR)"


def _flag(chosen: SelectedView, prediction_time: str) -> str:
    if chosen.known_since is None:
        values = ", ".join(f"CAST({quote(feature)} AS VARCHAR)" for feature in chosen.features)
        return f"CASE WHEN coalesce({values}) IS NULL THEN 'missing' ELSE 'ok' END"
    known_since = quote(chosen.known_since)
    fresh = is_fresh(prediction_time, known_since, chosen.view.freshness_days)
    return f"CASE WHEN {known_since} IS NULL THEN 'missing' WHEN {fresh} THEN 'ok' ELSE 'stale' END"
