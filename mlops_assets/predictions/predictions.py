"""`predictions`: every row of the spine scored by the champion, with the features it saw. One partition a period."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES, PartitionCheckResult
from mlops_assets.core.keys import PREDICTIONS
from mlops_assets.core.prediction_columns import BATCH, CHAMPION_ROLE, PREDICTION_DESCRIPTIONS, prediction_columns
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import champions
from mlops_assets.feature_store.point_in_time import SelectedView, is_fresh
from mlops_assets.lake.lake import Lake, PartitionRange, current_snapshot, literal, quote
from mlops_assets.predictions.all_predictions import separate_log, update_view
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
        check_specs=[rule.partitioned_spec(key, inputs.partitions) for rule in rules_of_asset],
        retry_policy=RETRIES,
        code_version="2",
    )
    @step
    def predictions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult]:
        predicting = champions(context.instance, registry, settings, inputs)
        window = partition_range(context, inputs.solution.partitions.column)
        with lake.connect(read_only=False) as connection:
            require_inputs(connection, inputs)
            separate_log(lake, connection, inputs.name, author=context.run.run_id)
            with scored_rows(connection, inputs, predicting, first=window.start, end=window.end) as query:
                written = lake.replace(
                    connection,
                    table=inputs.table(PREDICTIONS),
                    query=query,
                    partition_range=window,
                    author=context.run.run_id,
                )
            update_view(lake, connection, inputs.name)
            schema = table_schema(
                connection, f"lake.{inputs.table(PREDICTIONS)}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS
            )
            checks = [
                *check_complete(connection, inputs, window, keys=context.partition_keys),
                *check_finite(connection, inputs, window, keys=context.partition_keys),
                *check_fresh_features(connection, inputs, window, keys=context.partition_keys),
            ]
        record_partition_rows(context, written.rows_by_partition)
        record_range_metadata(context, frame_lineage(inputs, (column.name for column in schema.columns)))
        yield dg.MaterializeResult(
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


def check_complete(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether in each of the partitions `keys`, which are those of `window`, every row of the spine has exactly one prediction."""
    key, partition = quote(inputs.solution.spine.key), quote(window.column)
    rows, day = internal("rows"), internal("day")
    spine, predicted = (
        f"(SELECT {key}, {partition} AS {day}, count(*) AS {rows} FROM lake.{table} t WHERE {window.predicate('t')} GROUP BY ALL)"
        for table in (inputs.spine.table, inputs.table(PREDICTIONS))
    )
    by_date = connection.execute(
        f"SELECT CAST({day} AS VARCHAR), count(*), count(*) FILTER (WHERE {_is_wrong('s', 'p', rows)}), "
        f"list(CAST({key} AS VARCHAR) ORDER BY {key}) FILTER (WHERE {_is_wrong('s', 'p', rows)})[:{MOST_EXAMPLES}] "
        f"FROM {spine} s FULL JOIN {predicted} p USING ({key}, {day}) GROUP BY 1"
    ).fetchall()
    total = rows_by_partition_key(keys, {date: count for date, count, _, _ in by_date})
    wrong = rows_by_partition_key(keys, {date: count for date, _, count, _ in by_date})
    examples = _by_partition_key(keys, {date: found for date, _, _, found in by_date})
    return [
        PartitionCheckResult.of(
            check_rules.COMPLETE.result(
                inputs.key(PREDICTIONS),
                passed=wrong[name] == 0 and sum(total.values()) > 0,
                metadata={
                    "rows": total[name],
                    "least_rows_of_the_run": 1,
                    "without_exactly_one_prediction": wrong[name],
                    "maximum": 0,
                    "examples": dg.MetadataValue.json(examples[name]),
                    **({} if total[name] else {"no_examples": "There is no row."}),
                },
                description=(f"{wrong[name]} of {total[name]} keys have not one prediction" if wrong[name] else None)
                if total[name]
                else "the spine has no row in this partition",
            ),
            name,
        )
        for name in keys
    ]


def _is_wrong(spine: str, predicted: str, rows: str) -> str:
    return f"({spine}.{rows} IS DISTINCT FROM 1 OR {predicted}.{rows} IS DISTINCT FROM 1)"


def _by_partition_key(keys: Sequence[str], by_date: Mapping[str, Sequence[str] | None]) -> dict[str, list[str]]:
    """The first examples of each partition, of those of its dates."""
    examples: dict[str, list[str]] = {name: [] for name in keys}
    for day, found in sorted(by_date.items()):
        [name] = [key for key, count in rows_by_partition_key(keys, {day: 1}).items() if count]
        examples[name] = [*examples[name], *(found or ())][:MOST_EXAMPLES]
    return examples


def check_finite(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether in each of the partitions `keys`, which are those of `window`, every prediction is a finite number."""
    column = "value" if inputs.solution.problem == "regression" else "score"
    key, is_wrong = quote(inputs.solution.spine.key), f"({column} IS NULL OR NOT isfinite({column}))"
    by_date = connection.execute(
        f"SELECT CAST({quote(window.column)} AS VARCHAR), count(*), count(*) FILTER (WHERE {is_wrong}), min({column}), max({column}), "
        f"list(CAST({key} AS VARCHAR) ORDER BY {key}) FILTER (WHERE {is_wrong})[:{MOST_EXAMPLES}] "
        f"FROM lake.{inputs.table(PREDICTIONS)} t WHERE {window.predicate('t')} GROUP BY 1"
    ).fetchall()
    rows = rows_by_partition_key(keys, {date: count for date, count, *_ in by_date})
    wrong = rows_by_partition_key(keys, {date: count for date, _, count, *_ in by_date})
    examples = _by_partition_key(keys, {row[0]: row[5] for row in by_date})
    lowest = min((row[3] for row in by_date if row[3] is not None), default=0)
    highest = max((row[4] for row in by_date if row[4] is not None), default=0)
    return [
        PartitionCheckResult.of(
            check_rules.FINITE.result(
                inputs.key(PREDICTIONS),
                passed=wrong[name] == 0,
                metadata={
                    "rows": rows[name],
                    "not_finite": wrong[name],
                    "maximum_not_finite": 0,
                    "examples": dg.MetadataValue.json(examples[name]),
                    "minimum_of_the_run": float(lowest),
                    "maximum_of_the_run": float(highest),
                },
                description=f"{wrong[name]} of {rows[name]} predictions are no finite number" if wrong[name] else None,
            ),
            name,
        )
        for name in keys
    ]


def _too_old(chosen: SelectedView, asked: str) -> str:
    """SQL that is true when a row has no values of the view because of their age, or older ones than the solution accepts."""
    stale = f"json_extract_string({VIEW_FLAGS}, {literal('$.' + chosen.view.name)}) = 'stale'"
    if chosen.known_since is None or chosen.accepted_lag_days is None:
        return stale
    accepted = is_fresh(asked, quote(chosen.known_since), chosen.accepted_lag_days)
    return f"({stale} OR coalesce(NOT ({accepted}), false))"


def check_fresh_features(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether in each of the partitions `keys`, which are those of `window`, the values of every view are recent enough.

    A view that is not built any more spoils whole partitions; an entity that was quiet for long spoils rows here and there.
    """
    asked, key = quote(inputs.solution.spine.prediction_time), quote(inputs.solution.spine.key)
    counted = "".join(
        f", count(*) FILTER (WHERE {old}), arg_min(CAST({key} AS VARCHAR), {key}, {MOST_EXAMPLES}) FILTER (WHERE {old})"
        for old in (_too_old(chosen, asked) for chosen in inputs.views)
    )
    by_date = connection.execute(
        f"SELECT CAST({quote(window.column)} AS VARCHAR), count(*){counted} FROM lake.{inputs.table(PREDICTIONS)} t "
        f"WHERE {window.predicate('t')} GROUP BY 1"
    ).fetchall()
    rows, *stale = (
        rows_by_partition_key(keys, {day: counts[position] for day, *counts in by_date})
        for position in (0, *range(1, 2 * len(inputs.views) + 1, 2))
    )
    examples = {
        chosen.view.name: _by_partition_key(keys, {day: counts[2 * number + 2] for day, *counts in by_date})
        for number, chosen in enumerate(inputs.views)
    }
    results = []
    for name in keys:
        shares = {
            chosen.view.name: old[name] / rows[name] if rows[name] else 0.0
            for chosen, old in zip(inputs.views, stale, strict=True)
        }
        late = {view: f"{view}: {share:.0%}" for view, share in shares.items() if share > _MOST_STALE}
        result = check_rules.FRESH_FEATURES.result(
            inputs.key(PREDICTIONS),
            passed=not late,
            metadata={
                "limit": _MOST_STALE,
                "rows": rows[name],
                "share_too_old": dg.MetadataValue.json(shares),
                "examples": dg.MetadataValue.json({view: examples[view][name] for view in late}),
            },
            description=f"values too old: {', '.join(late.values())}" if late else None,
        )
        results.append(PartitionCheckResult.of(result, name))
    return results
