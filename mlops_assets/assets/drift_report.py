"""`drift_report`: how the predictions' features of a window differ from the champion's hold-out. One partition a window."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.assets.evaluation_page import plot_metadata
from mlops_assets.assets.execution import (
    RETRIES,
    partition_range,
    permanent_failure,
    record_partition_rows,
    record_range_metadata,
    table_schema,
    written_metadata,
)
from mlops_assets.assets.scoring import MODEL_VERSION
from mlops_assets.checks import rules
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import DRIFT_REPORT, EVALUATION, PREDICTIONS, TRAINING_DATASET, TRAINING_DATE
from mlops_assets.resources.lake import Lake, PartitionRange, quote
from mlops_assets.resources.model_registry import TRAINING_DATE_TAG, ModelRegistry
from mlops_assets.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.drift import DriftResult
    from mlops_assets.ml.matrix import FeatureSchema

WINDOW = "window_start"

_DESCRIPTIONS = {
    WINDOW: "First day of the monitoring window.",
    MODEL_VERSION: "Version whose hold-out is the reference.",
    "feature": "The feature, or * for all together.",
    "method": "Distance, or the error of reconstruction by principal components.",
    "value": "Drift of the window from the reference.",
    "lower_threshold": "Below it NannyML alerts.",
    "upper_threshold": "Above it NannyML alerts.",
    "effect": "What is compared with the least effect of an alert.",
    "alert": "Whether threshold and least effect are both passed.",
}


def build_drift_report(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The drift report of one solution."""
    key = inputs.key(DRIFT_REPORT)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description=f"Univariate and reconstruction drift of the features by {solution.monitoring.window} window, with an HTML page each.",
        owners=solution.owners,
        group_name=inputs.name,
        kinds={"nannyml", "duckdb"},
        tags=inputs.tags(DRIFT_REPORT),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[inputs.key(PREDICTIONS), dg.AssetDep(inputs.key(EVALUATION), partition_mapping=dg.AllPartitionMapping())],
        check_specs=[rules.DRIFT.spec(key)],
        retry_policy=RETRIES,
        code_version="1",
    )
    def drift_report(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        from mlops_assets.ml.matrix import FeatureSchema

        replaced = partition_range(context, WINDOW)
        with lake.connect(read_only=False) as connection:
            rows = {key: _predictions(connection, inputs, window) for key, window in _windows(context, inputs).items()}
            if empty := [key for key, table in rows.items() if not table.num_rows]:
                raise permanent_failure(
                    f"No predictions in the windows {', '.join(empty)}: materialize {inputs.name}/{PREDICTIONS} there."
                )
            version = max(max(table.column(MODEL_VERSION).to_pylist()) for table in rows.values())
            reference = _reference(connection, registry, inputs, version)
            watched = [name for name in inputs.features if name not in solution.monitoring.drift.ignore]
            schema = FeatureSchema.from_arrow(reference.schema, watched)
            result = _measure(inputs, reference=reference, windows=rows, schema=schema)
            connection.register("drift_rows", result.to_arrow())
            written = lake.replace(
                connection,
                table=inputs.table(DRIFT_REPORT),
                query=f'SELECT CAST("window" AS DATE) AS {WINDOW}, {version} AS {MODEL_VERSION}, * EXCLUDE ("window") FROM drift_rows',
                partition_range=replaced,
                author=context.run.run_id,
            )
            column_schema = table_schema(connection, f"lake.{inputs.table(DRIFT_REPORT)}", _DESCRIPTIONS)
        shares = {key: _share_of_features(result, key) for key in rows}
        for key, table in rows.items():
            page = _write_page(settings, inputs, result=result, window=key, reference=reference, current=table, schema=schema)
            context.add_asset_metadata(
                {"report": dg.MetadataValue.path(str(page)), "rows": table.num_rows, "drifted_share": shares[key]},
                asset_key=context.asset_key,
                partition_key=key,
            )
        record_partition_rows(context, written)
        record_range_metadata(context, {"summary": dg.MetadataValue.md(_summary(result, shares)), **_plot(result)})
        return dg.MaterializeResult(
            metadata={**written_metadata(written), "dagster/column_schema": column_schema, MODEL_VERSION: version},
            check_results=[_check(inputs, result, shares)],
        )

    return drift_report


def report_path(settings: Settings, solution: str, window: str) -> Path:
    """The HTML page of one window."""
    return settings.reports_directory / solution / f"drift-{window}.html"


def _windows(context: dg.AssetExecutionContext, inputs: SolutionInputs) -> dict[str, PartitionRange]:
    column = inputs.solution.partitions.column
    found = {}
    for key in context.partition_keys:
        window = inputs.windows.time_window_for_partition_key(key)
        found[key] = PartitionRange(column, window.start.date(), window.end.date())
    return found


def _predictions(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange) -> "pa.Table":
    return connection.execute(
        f"FROM lake.{inputs.table(PREDICTIONS)} t WHERE {window.predicate('t')} "
        f"ORDER BY {quote(inputs.solution.spine.prediction_time)}, {quote(inputs.solution.spine.key)}"
    ).to_arrow_table()


def _reference(
    connection: duckdb.DuckDBPyConnection, registry: ModelRegistry, inputs: SolutionInputs, version: int
) -> "pa.Table":
    """Features and predictions of the hold-out that version `version` was evaluated on."""
    training_date = date.fromisoformat(registry.get(inputs.name, version).tags[TRAINING_DATE_TAG])
    spine = inputs.solution.spine
    key, predicted = quote(spine.key), quote(spine.prediction_time)
    return connection.execute(
        f"SELECT d.*, e.* EXCLUDE ({TRAINING_DATE}, {key}, {predicted}, {quote(spine.label)}) "
        f"FROM lake.{inputs.table(TRAINING_DATASET)} d JOIN lake.{inputs.table(EVALUATION)} e USING ({key}) "
        f"WHERE d.{TRAINING_DATE} = DATE '{training_date}' AND e.{TRAINING_DATE} = DATE '{training_date}' "
        f"ORDER BY d.{predicted}, {key}"
    ).to_arrow_table()


def _measure(
    inputs: SolutionInputs, *, reference: "pa.Table", windows: Mapping[str, "pa.Table"], schema: "FeatureSchema"
) -> "DriftResult":
    from mlops_assets.ml.drift import DriftSettings, compute_drift

    declared = inputs.solution.monitoring.drift
    defaults = DriftSettings()
    settings = DriftSettings(
        maximum_rows=declared.maximum_rows,
        effect_floors={**defaults.effect_floors, "jensen_shannon": declared.effect_size},
    )
    return compute_drift(
        reference=reference,
        windows=list(windows.items()),
        schema=schema,
        settings=settings,
        reference_chunk_column=None,
        key_column=inputs.solution.spine.key,
    )


def _share_of_features(result: "DriftResult", window: str) -> float:
    measured = {row.feature for row in result.of_window(window)} - {"*"}
    drifted = {row.feature for row in result.of_window(window) if row.alert} - {"*"}
    return len(drifted) / len(measured)


def _summary(result: "DriftResult", shares: Mapping[str, float]) -> str:
    from mlops_assets.ml.report import headline

    lines = [f"| {key} | {share:.0%} | {headline(result.of_window(key))} |" for key, share in shares.items()]
    return "| window | drifted features | |\n|---|---|---|\n" + "\n".join(lines)


def _plot(result: "DriftResult") -> dict[str, Any]:
    from mlops_assets.ml.plots import drift_plot

    return plot_metadata({"drift": drift_plot(result)})


def _write_page(
    settings: Settings,
    inputs: SolutionInputs,
    *,
    result: "DriftResult",
    window: str,
    reference: "pa.Table",
    current: "pa.Table",
    schema: "FeatureSchema",
) -> Path:
    from mlops_assets.ml.report import render_drift_report

    page = render_drift_report(
        title=inputs.name,
        window=window,
        result=result,
        reference=reference,
        current=current,
        schema=schema,
        scores=(_scores(reference), _scores(current)),
        links={
            "Drift report in Dagster": f"{settings.dagster_url}/assets/{inputs.name}/{DRIFT_REPORT}?partition={window}",
            "Predictions in Dagster": f"{settings.dagster_url}/assets/{inputs.name}/{PREDICTIONS}",
            "Model versions in MLflow": f"{settings.mlflow_url}/#/models/{inputs.name}",
        },
    )
    path = report_path(settings, inputs.name, window)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path


def _scores(table: "pa.Table") -> "np.ndarray":
    return table.column("value" if "value" in table.column_names else "score").to_numpy()


def _check(inputs: SolutionInputs, result: "DriftResult", shares: Mapping[str, float]) -> dg.AssetCheckResult:
    limit = inputs.solution.monitoring.drift.maximum_share_of_features
    above = {key: share for key, share in shares.items() if share > limit}
    alerts = {key: sorted({row.feature for row in result.of_window(key) if row.alert}) for key in shares}
    return rules.DRIFT.result(
        inputs.key(DRIFT_REPORT),
        passed=not above,
        metadata={
            "limit": limit,
            "share_by_window": dg.MetadataValue.json(dict(shares)),
            "alerts_by_window": dg.MetadataValue.json(alerts),
        },
        description=f"drift in {', '.join(above)}" if above else None,
    )
