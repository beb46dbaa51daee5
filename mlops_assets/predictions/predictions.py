"""`predictions`: every row of the spine scored by the champion, with the features it saw. One partition a period."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from mlops_assets.deployment.deployment import champions
from mlops_assets.feature_store.point_in_time import SelectedView, is_fresh
from mlops_assets.lake.lake import Lake, PartitionRange, current_snapshot, literal, quote
from mlops_assets.schema.column_names import (
    CHANNEL,
    FEATURE_VIEWS,
    MODEL_VERSION,
    PREDICTION_ID,
    ROLE,
    SOURCE_SNAPSHOT,
    VIEW_FLAGS,
    internal,
)
from mlops_assets.stages.column_lineage import frame_lineage
from mlops_assets.stages.execution import (
    RETRIES,
    partition_range,
    record_partition_rows,
    record_range_metadata,
    require_inputs,
    rows_by_partition_key,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.segments import Champions

BATCH_ROWS = 20_000
"""Rows that are scored at once."""

PART_VALUES = 30_000_000
"""Feature values that are joined at once: beside them the rows that were scored before wait to be written."""

_MOST_STALE = 0.2
"""Share of the rows of a partition; single entities are quiet for long at any time."""


def build_predictions(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The batch predictions of one solution."""
    key = inputs.key(PREDICTIONS)
    rules_of_asset = [check_rules.COMPLETE, check_rules.FINITE, check_rules.FRESH_FEATURES]

    @dg.asset(
        key=key,
        description="Rows of the spine scored by the champion, with the features as known at prediction time.",
        owners=inputs.solution.owners,
        group_name=inputs.name,
        kinds={"onnx", "duckdb"},
        tags=inputs.tags(PREDICTIONS),
        partitions_def=inputs.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            *(dg.AssetDep(deployment, partition_mapping=dg.AllPartitionMapping()) for deployment in inputs.deployments),
            *inputs.upstream_keys,
        ],
        check_specs=[rule.spec(key) for rule in rules_of_asset],
        retry_policy=RETRIES,
        code_version="2",
    )
    @step
    def predictions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        predicting = champions(context.instance, registry, settings, inputs)
        window = replace(partition_range(context, inputs.solution.partitions.column), only=(CHANNEL, BATCH, BATCH))
        with lake.connect(read_only=False) as connection:
            require_inputs(connection, inputs)
            with scored_rows(connection, inputs, predicting, first=window.start, end=window.end) as query:
                written = lake.replace(
                    connection,
                    table=inputs.table(PREDICTIONS),
                    query=query,
                    partition_range=window,
                    author=context.run.run_id,
                )
            schema = table_schema(
                connection, f"lake.{inputs.table(PREDICTIONS)}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS
            )
            checks = [
                _complete(connection, inputs, window),
                _finite(connection, inputs, window),
                check_fresh_features(connection, inputs, window, keys=context.partition_keys),
            ]
        record_partition_rows(context, written.rows_by_partition)
        record_range_metadata(context, frame_lineage(inputs, (column.name for column in schema.columns)))
        return dg.MaterializeResult(
            metadata={
                **written_metadata(written),
                "dagster/column_schema": schema,
                MODEL_VERSION: predicting.default.contract.version,
                **_segments(predicting),
                "mlflow": dg.MetadataValue.url(f"{registry.url}/#/models/{inputs.name}"),
            },
            check_results=checks,
        )

    return predictions


def _segments(predicting: "Champions") -> dict[str, Any]:
    """The champions of segments, for the asset's page."""
    versions = {
        bundle.contract.segment.value: bundle.contract.version for bundle in predicting.segments if bundle.contract.segment
    }
    return {"segments": dg.MetadataValue.json(versions)} if versions else {}


@contextmanager
def scored_rows(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, predicting: "Champions", *, first: date, end: date
) -> Iterator[str]:
    """SQL for the rows of the spine's partitions in `[first, end)` with their predictions, to be run once inside the `with` block.

    They are read, scored and handed on in batches of `BATCH_ROWS`: memory does not grow with the partitions.
    """
    import pyarrow as pa

    snapshot = current_snapshot(connection)
    frame = inputs.frame(first=first, end=end, condition="true", labelled=False, snapshot=snapshot)
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
        yield _rows_query(inputs, predicting, snapshot)


def _with_predictions(frame: "pa.Table", predicting: "Champions") -> "pa.Table":
    scored = predicting.score(frame)
    for name in (MODEL_VERSION, *prediction_columns(scored)):
        frame = frame.append_column(name, scored.column(name))
    return frame


def _rows_query(inputs: SolutionInputs, predicting: "Champions", snapshot: int) -> str:
    identifier = f"'{inputs.name}:' || CAST({quote(inputs.solution.spine.key)} AS VARCHAR) || ':' || {MODEL_VERSION}"
    views = " ".join(
        f"WHEN {each.contract.version} THEN "
        + literal(json.dumps({view.name: view.version for view in each.contract.feature_views}))
        for each in predicting.bundles
    )
    return (
        f"SELECT {identifier} AS {PREDICTION_ID}, '{BATCH}' AS {CHANNEL}, '{CHAMPION_ROLE}' AS {ROLE}, "
        f"CAST({MODEL_VERSION} AS INTEGER) AS {MODEL_VERSION}, CASE {MODEL_VERSION} {views} END AS {FEATURE_VIEWS}, "
        f"{_view_flags(inputs)} AS {VIEW_FLAGS}, {snapshot} AS {SOURCE_SNAPSHOT}, * EXCLUDE ({MODEL_VERSION}) FROM scored_rows"
    )


def _view_flags(inputs: SolutionInputs) -> str:
    """SQL for what the online store would say of the values of each view, as a JSON object."""
    asked = quote(inputs.solution.spine.prediction_time)
    flags = ", ".join(f"{literal(chosen.view.name)}, {_flag(chosen, asked)}" for chosen in inputs.views)
    return f"CAST(json_object({flags}) AS VARCHAR)"


def _flag(chosen: SelectedView, asked: str) -> str:
    if chosen.known_since is None:
        values = ", ".join(f"CAST({quote(feature)} AS VARCHAR)" for feature in chosen.features)
        return f"CASE WHEN coalesce({values}) IS NULL THEN 'missing' ELSE 'ok' END"
    known_since = quote(chosen.known_since)
    fresh = is_fresh(asked, known_since, chosen.view.freshness_days)
    return f"CASE WHEN {known_since} IS NULL THEN 'missing' WHEN {fresh} THEN 'ok' ELSE 'stale' END"


def _complete(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange) -> dg.AssetCheckResult:
    key, asked = quote(inputs.solution.spine.key), replace(window, only=None)
    rows = internal("rows")
    spine, predicted = (
        f"(SELECT {key}, count(*) AS {rows} FROM lake.{table} t WHERE {part.predicate('t')} GROUP BY 1)"
        for table, part in ((inputs.spine.table, asked), (inputs.table(PREDICTIONS), window))
    )
    wrong, total = connection.execute(
        f"SELECT count(*) FILTER (WHERE s.{rows} IS DISTINCT FROM 1 OR p.{rows} IS DISTINCT FROM 1), count(*) "
        f"FROM {spine} s FULL JOIN {predicted} p USING ({key})"
    ).fetchall()[0]
    return check_rules.COMPLETE.result(
        inputs.key(PREDICTIONS),
        passed=wrong == 0 and total > 0,
        metadata={"rows": total, "without_exactly_one_prediction": wrong},
        description=None if total else "the spine has no row in these partitions",
    )


def _finite(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange) -> dg.AssetCheckResult:
    column = "value" if inputs.solution.problem == "regression" else "score"
    wrong, lowest, mean, highest = connection.execute(
        f"SELECT count(*) FILTER (WHERE {column} IS NULL OR NOT isfinite({column})), min({column}), avg({column}), max({column}) "
        f"FROM lake.{inputs.table(PREDICTIONS)} t WHERE {window.predicate('t')}"
    ).fetchall()[0]
    return check_rules.FINITE.result(
        inputs.key(PREDICTIONS),
        passed=wrong == 0,
        metadata={"not_finite": wrong, "minimum": float(lowest or 0), "mean": float(mean or 0), "maximum": float(highest or 0)},
        description=None,
    )


def _too_old(chosen: SelectedView, asked: str) -> str:
    """SQL that is true when a row has no values of the view because of their age, or older ones than the solution accepts."""
    stale = f"json_extract_string({VIEW_FLAGS}, {literal('$.' + chosen.view.name)}) = 'stale'"
    if chosen.known_since is None or chosen.accepted_lag_days is None:
        return stale
    accepted = is_fresh(asked, quote(chosen.known_since), chosen.accepted_lag_days)
    return f"({stale} OR coalesce(NOT ({accepted}), false))"


def check_fresh_features(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> dg.AssetCheckResult:
    """Whether in each of the partitions `keys`, which are those of `window`, the values of every view are recent enough.

    A view that is not built any more spoils whole partitions; an entity that was quiet for long spoils rows here and there.
    """
    asked = quote(inputs.solution.spine.prediction_time)
    counted = "".join(f", count(*) FILTER (WHERE {_too_old(chosen, asked)})" for chosen in inputs.views)
    by_date = connection.execute(
        f"SELECT CAST({quote(window.column)} AS VARCHAR), count(*){counted} FROM lake.{inputs.table(PREDICTIONS)} t "
        f"WHERE {window.predicate('t')} GROUP BY 1"
    ).fetchall()
    rows, *stale = (
        rows_by_partition_key(keys, {day: counts[position] for day, *counts in by_date})
        for position in range(len(inputs.views) + 1)
    )
    shares = {
        chosen.view.name: max((old[key] / rows[key] for key in rows if rows[key]), default=0.0)
        for chosen, old in zip(inputs.views, stale, strict=True)
    }
    late = [f"{name}: {share:.0%} of a partition" for name, share in shares.items() if share > _MOST_STALE]
    return check_rules.FRESH_FEATURES.result(
        inputs.key(PREDICTIONS),
        passed=not late,
        metadata={"limit": _MOST_STALE, "largest_share_of_a_partition": dg.MetadataValue.json(shares)},
        description=f"values too old: {', '.join(late)}" if late else None,
    )
