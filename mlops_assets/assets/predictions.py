"""`predictions`: every row of the spine scored by the champion, with the features it saw. One partition a period."""

import json
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.assets.deployment import champion_bundle, require_passed_gates
from mlops_assets.assets.execution import (
    RETRIES,
    partition_range,
    permanent_failure,
    record_partition_rows,
    table_schema,
    written_metadata,
)
from mlops_assets.assets.scoring import (
    BATCH,
    CHAMPION_ROLE,
    CHANNEL,
    FEATURE_VIEWS,
    MODEL_VERSION,
    PREDICTION_DESCRIPTIONS,
    PREDICTION_ID,
    ROLE,
    SOURCE_SNAPSHOT,
    VIEW_FLAGS,
    prediction_columns,
)
from mlops_assets.checks import rules
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import DEPLOYMENT, PREDICTIONS
from mlops_assets.resources.feature_store import SelectedView, is_fresh
from mlops_assets.resources.lake import Lake, PartitionRange, current_snapshot, literal, quote
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.bundle import Bundle


def build_predictions(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The batch predictions of one solution."""
    key = inputs.key(PREDICTIONS)
    rules_of_asset = [rules.COMPLETE, rules.FINITE]

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
            dg.AssetDep(inputs.key(DEPLOYMENT), partition_mapping=dg.AllPartitionMapping()),
            *inputs.upstream_keys,
        ],
        check_specs=[rule.spec(key) for rule in rules_of_asset],
        retry_policy=RETRIES,
        code_version="2",
    )
    def predictions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        from mlops_assets.serving.bundle import load_bundle

        champion = registry.champion(inputs.name)
        if champion is None:
            raise permanent_failure(
                f"{inputs.name} has no champion yet: materialize {inputs.name}/{DEPLOYMENT} for a training date."
            )
        # An alias moved by hand in MLflow must not bring a version to predict that its gates refused.
        require_passed_gates(champion)
        bundle = load_bundle(champion_bundle(registry, settings, champion))
        window = replace(partition_range(context, inputs.solution.partitions.column), only=(CHANNEL, BATCH))
        with lake.connect(read_only=False) as connection:
            written = lake.replace(
                connection,
                table=inputs.table(PREDICTIONS),
                query=_scored(connection, inputs, bundle, first=window.start, end=window.end),
                partition_range=window,
                author=context.run.run_id,
            )
            schema = table_schema(
                connection, f"lake.{inputs.table(PREDICTIONS)}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS
            )
            checks = [_complete(connection, inputs, window), _finite(connection, inputs, window, bundle)]
        record_partition_rows(context, written)
        return dg.MaterializeResult(
            metadata={
                **written_metadata(written),
                "dagster/column_schema": schema,
                MODEL_VERSION: champion.version,
                "mlflow": dg.MetadataValue.url(registry.version_url(champion)),
            },
            check_results=checks,
        )

    return predictions


def _scored(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, bundle: "Bundle", *, first: date, end: date) -> str:
    """Score the spine's partitions in `[first, end)`; returns SQL for the scored rows."""
    snapshot = current_snapshot(connection)
    frame = connection.execute(
        inputs.frame_query(first=first, end=end, condition="true", labelled=False, snapshot=snapshot)
    ).to_arrow_table()
    scored: pa.Table = bundle.score(frame)
    for name in prediction_columns(scored):
        frame = frame.append_column(name, scored.column(name))
    connection.register("scored_rows", frame)
    version = bundle.contract.version
    identifier = f"'{inputs.name}:' || CAST({quote(inputs.solution.spine.key)} AS VARCHAR) || ':{version}'"
    views = literal(json.dumps({view.name: view.version for view in bundle.contract.feature_views}))
    return (
        f"SELECT {identifier} AS {PREDICTION_ID}, '{BATCH}' AS {CHANNEL}, '{CHAMPION_ROLE}' AS {ROLE}, {version} AS {MODEL_VERSION}, "
        f"{views} AS {FEATURE_VIEWS}, {_view_flags(inputs)} AS {VIEW_FLAGS}, {snapshot} AS {SOURCE_SNAPSHOT}, * FROM scored_rows"
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
    key = quote(inputs.solution.spine.key)
    spine = f"(SELECT {key}, count(*) AS n FROM lake.{inputs.spine.table} t WHERE {window.predicate('t')} GROUP BY 1)"
    predicted = f"(SELECT {key}, count(*) AS n FROM lake.{inputs.table(PREDICTIONS)} t WHERE {window.predicate('t')} GROUP BY 1)"
    wrong, rows = connection.execute(
        f"SELECT count(*) FILTER (WHERE s.n IS DISTINCT FROM 1 OR p.n IS DISTINCT FROM 1), count(*) "
        f"FROM {spine} s FULL JOIN {predicted} p USING ({key})"
    ).fetchall()[0]
    return rules.COMPLETE.result(
        inputs.key(PREDICTIONS),
        passed=wrong == 0 and rows > 0,
        metadata={"rows": rows, "without_exactly_one_prediction": wrong},
        description=None if rows else "the spine has no row in these partitions",
    )


def _finite(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, bundle: "Bundle"
) -> dg.AssetCheckResult:
    column = "value" if bundle.contract.problem == "regression" else "score"
    wrong, lowest, mean, highest = connection.execute(
        f"SELECT count(*) FILTER (WHERE {column} IS NULL OR NOT isfinite({column})), min({column}), avg({column}), max({column}) "
        f"FROM lake.{inputs.table(PREDICTIONS)} t WHERE {window.predicate('t')}"
    ).fetchall()[0]
    return rules.FINITE.result(
        inputs.key(PREDICTIONS),
        passed=wrong == 0,
        metadata={"not_finite": wrong, "minimum": float(lowest or 0), "mean": float(mean or 0), "maximum": float(highest or 0)},
        description=None,
    )
