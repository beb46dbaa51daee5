"""`training_dataset`: labelled rows with every feature as it was known at prediction time, split by time. One partition a training date."""

from collections.abc import Sequence
from datetime import date, datetime
from math import ceil

import dagster as dg
import duckdb

from mlops_assets.core.keys import TRAINING_DATASET, TRAINING_DATE
from mlops_assets.core.settings import Settings
from mlops_assets.engine.engine import open_engine
from mlops_assets.engine.table_parts import TableParts
from mlops_assets.feature_store.point_in_time import PART_VALUES
from mlops_assets.lake.datasets import dataset_information
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import quote, sql_moment
from mlops_assets.lake.tables import LakeError, current_snapshot, snapshot_at
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.schema.column_names import SPLIT, internal
from mlops_assets.schema.duration import maximum_days
from mlops_assets.stages.column_lineage import frame_lineage
from mlops_assets.stages.execution import (
    RETRIES,
    partition_date,
    permanent_failure,
    require_inputs,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training import dataset_checks as checks
from mlops_assets.training.frame_parts import FrameParts
from mlops_assets.training.training_frame import draw_earlier_rows, split_query, training_frame

_FRAME = internal("frame_of_part")
"""The place of the rows of a part in the query of the dataset."""


class TrainingDatasetConfig(dg.Config):
    """Run configuration: build the dataset from what the lake held at a moment (ISO, with time zone), ignoring what came later."""

    as_known_at: str | None = None


def build_training_dataset(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The training dataset of one solution; its partition key is the training date, the end of what the model may know."""
    key = inputs.key(TRAINING_DATASET)
    training = inputs.solution.training

    @dg.asset(
        key=key,
        description=f"Labelled rows of the {training.window} before the training date, the last {training.holdout} held out."
        if inputs.solution.spine.has_time
        else f"Labelled rows of the snapshot of the training date, {training.holdout_share:.0%} of each class held out.",
        kinds={"duckdb", "parquet"},
        **inputs.asset_attributes(TRAINING_DATASET),
        partitions_def=inputs.partitions,
        deps=_history(inputs),
        check_specs=[rule.spec(key) for rule in checks.RULES],
        retry_policy=RETRIES,
        code_version="1",
    )
    @step
    def training_dataset(
        context: dg.AssetExecutionContext,
        config: TrainingDatasetConfig,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        training_date = partition_date(context)
        table = inputs.table(TRAINING_DATASET)
        with lake.connect(read_only=False) as connection:
            require_inputs(connection, inputs)
            source_snapshot = _source_snapshot(connection, config)
            frame = training_frame(
                inputs, training_date, source_snapshot, draw_earlier_rows(connection, inputs, training_date, source_snapshot)
            )
            information = dataset_information(
                query=split_query(inputs, training_date, frame.query),
                training_date=training_date,
                source_snapshot=source_snapshot,
                feature_views=inputs.view_versions,
            )
            rows_of_parts = TableParts(
                rows=FrameParts(*split_query(inputs, training_date, _FRAME).split(_FRAME)),
                parts=frame.parts(connection, settings.part_values or PART_VALUES),
                table=table,
                partition_range=PartitionRange(TRAINING_DATE, training_date, date.fromordinal(training_date.toordinal() + 1)),
                uncounted=None,
                counted="true",
            )
            with open_engine(settings.engine, settings) as engine:
                written = lake.replace(
                    connection,
                    table=table,
                    query=rows_of_parts.computed(engine, lake, connection, settings),
                    partition_range=rows_of_parts.partition_range,
                    author=context.run.run_id,
                    information=information,
                )
            if not written.rows:
                place = f"lies in the {training.window} before" if inputs.solution.spine.has_time else "is in the snapshot of"
                raise permanent_failure(
                    f"No labelled row of {inputs.spine.table} {place} {training_date}: materialize the spine for it first."
                )
            rows = dataset_query(inputs, training_date)
            checked = checks.check_dataset(connection, inputs, rows=rows, training_date=training_date)
            schema = table_schema(connection, f"lake.{table}", inputs.column_descriptions)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(written.fingerprint),
            check_results=checked.results,
            metadata={
                **written_metadata(written),
                "dagster/column_schema": schema,
                **frame_lineage(inputs, (column.name for column in schema.columns)),
                "dagster/partition_row_count": written.rows,
                "source_snapshot": source_snapshot,
                "feature_views": dg.MetadataValue.json(inputs.view_versions),
                "rows_by_split": dg.MetadataValue.json(checked.rows_by_split),
                "feature_coverage": dg.MetadataValue.md(_coverage_table(checked.coverage)),
            },
        )

    return training_dataset


def dataset_query(inputs: SolutionInputs, training_date: date) -> str:
    """SQL, in parentheses, for the rows of one dataset with the columns of the present configuration."""
    known = [chosen.known_since for chosen in inputs.views if chosen.known_since]
    columns = dict.fromkeys([TRAINING_DATE, SPLIT, *inputs.spine_columns(labelled=True), *inputs.features, *known])
    names = ", ".join(map(quote, columns))
    return f"(SELECT {names} FROM lake.{inputs.table(TRAINING_DATASET)} WHERE {TRAINING_DATE} = DATE '{training_date}')"


def dataset_rows_query(inputs: SolutionInputs, training_date: date, split: str, since: date | None = None) -> str:
    """SQL for the rows of one split of one dataset, those of the run's segment if it has one, always in the same order.

    With `since` those predicted from that date on: a model trained for it has seen none of them.
    """
    spine = inputs.solution.spine
    later = "" if since is None else f"AND {quote(spine.prediction_time)} >= {sql_moment(inputs.midnight(since))} "
    return (
        f"SELECT * FROM {dataset_query(inputs, training_date)} WHERE {SPLIT} = '{split}' AND {inputs.in_segment} {later}"
        f"ORDER BY {quote(spine.prediction_time)}, {quote(spine.key)}"
    )


def _source_snapshot(connection: duckdb.DuckDBPyConnection, config: TrainingDatasetConfig) -> int:
    """The lake snapshot to read: the newest, or the one that was the newest at `as_known_at`."""
    if config.as_known_at is None:
        return current_snapshot(connection)
    try:
        moment = datetime.fromisoformat(config.as_known_at)
    except ValueError as error:
        raise permanent_failure(
            f"as_known_at: {config.as_known_at!r} is no ISO date and time, such as 2013-07-01T00:00:00+00:00."
        ) from error
    if moment.tzinfo is None:
        raise permanent_failure(f"as_known_at: {config.as_known_at!r} has no time zone; append +00:00 for UTC.")
    try:
        return snapshot_at(connection, moment)
    except LakeError as error:
        raise permanent_failure(str(error)) from error


def _history(inputs: SolutionInputs) -> list[dg.AssetDep]:
    """Dependencies on the partitions before the training date that the window covers."""
    if not inputs.solution.spine.has_time:
        return [dg.AssetDep(key) for key in inputs.upstream_keys]
    # Earlier rows are taken as far as they are there: a training waits for none of them.
    # A calendar window does not divide into partitions: the longest span of each unit, in days.
    days = maximum_days(inputs.solution.training.window)
    length = CADENCE_LENGTHS[inputs.solution.partitions.cadence].fewest_days
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-ceil(days / length), end_offset=-1, allow_nonexistent_upstream_partitions=True
    )
    temporal = {inputs.spine_key} | {inputs.view_key(chosen) for chosen in inputs.views if chosen.view.model.partition_column}
    return [dg.AssetDep(key, partition_mapping=mapping if key in temporal else None) for key in inputs.upstream_keys]


def _coverage_table(coverage: Sequence[checks.ViewCoverage]) -> str:
    """Per view how many rows have no history yet, and how many only values older than the freshness limit."""
    lines = [
        f"| {view_coverage.view} | {view_coverage.version} | {view_coverage.without_history} | {view_coverage.stale} | "
        f"{'' if view_coverage.median_hours is None else f'{view_coverage.median_hours:.1f}'} |"
        for view_coverage in coverage
    ]
    return "\n".join(
        [
            "| view | version | rows without history | rows with stale values | median age in hours |",
            "|---|---|---|---|---|",
            *lines,
        ]
    )
