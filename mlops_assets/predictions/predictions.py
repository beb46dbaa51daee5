"""The asset `predictions`: every row of the spine scored by the champion, with the features it read.

What was predicted stays: a row that is scored again with another result gets one more generation beside the former ones.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core import check_rules
from mlops_assets.core.keys import PREDICTIONS
from mlops_assets.core.prediction_columns import BATCH, CHAMPION_ROLE, PREDICTION_DESCRIPTIONS
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import load_champions
from mlops_assets.engine.engine import open_engine
from mlops_assets.engine.table_parts import TableParts
from mlops_assets.feature_store.point_in_time import Frame, SelectedView, is_fresh
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.predictions.all_predictions import update_view
from mlops_assets.predictions.input_arrival import INPUTS_ARRIVED, check_inputs_arrived
from mlops_assets.predictions.scored_parts import SCORED, BundleReference, ScoredParts, StoredChampions
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
from mlops_assets.training.training_frame import labelled_rows

if TYPE_CHECKING:
    from mlops_assets.serving.segments import Champions
from mlops_assets.predictions.prediction_checks import check_complete, check_finite, check_fresh_features

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
            with open_engine(settings.engine, settings) as engine:
                rows = scored_rows(
                    connection,
                    inputs,
                    predicting,
                    stored_champions(registry, settings, predicting),
                    training_dates,
                    window=window,
                    config=config,
                    part_values=settings.part_values or PART_VALUES,
                )
                written = lake.add_generation(
                    connection,
                    table=rows.table,
                    query=rows.computed(engine, lake, connection, settings),
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


def stored_champions(registry: ModelRegistry, settings: Settings, champions: "Champions") -> StoredChampions:
    """Where the bundles of `champions` are, for processes that have to load them."""
    name = champions.default.contract.name
    records = [registry.registered_record(registry.get(name, version)) for version in champions.versions]
    return StoredChampions(
        settings, name, tuple(BundleReference(record.version, record.sha256, record.files) for record in records)
    )


def _segments(predicting: "Champions") -> dict[str, Any]:
    """The champions of segments, for the asset's page."""
    versions = {
        bundle.contract.segment.value: bundle.contract.version for bundle in predicting.segments if bundle.contract.segment
    }
    return {"segments": dg.MetadataValue.json(versions)} if versions else {}


def scored_rows(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    champions: "Champions",
    stored: StoredChampions,
    training_dates: Mapping[int, Collection[date]],
    *,
    window: PartitionRange,
    config: ScoringConfig,
    part_values: int,
) -> TableParts[Frame]:
    """The rows of the spine's partitions in `window` with their predictions, in parts of about `part_values` feature values.

    `training_dates` are those of the versions of `champions`, which are `stored`.
    """
    first, end, snapshot = window.start, window.end, current_snapshot(connection)
    frame = inputs.frame(first=first, end=end, condition=inputs.is_predicted, labelled=False, snapshot=snapshot)
    trained_on = _trained_on(inputs, training_dates, first=first, end=end, snapshot=snapshot)
    return TableParts(
        rows=ScoredParts(_rows_query(inputs, champions, trained_on, snapshot, config), stored, champions),
        parts=frame.parts(connection, part_values),
        table=inputs.table(PREDICTIONS),
        partition_range=window,
        uncounted=PREDICTION_ID,
        counted=COUNTED,
    )


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
        f"CAST({reason} AS VARCHAR) AS {SCORED_BECAUSE} FROM {SCORED})"
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
