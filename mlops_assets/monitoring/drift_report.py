"""`drift_report`: how far the rows of a window are from the hold-out of the version that predicted them. One partition a window.

Distances of features, prediction and label are computed in the lake; one feature `*` holds the reconstruction error of all features together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES, PartitionCheckResult
from mlops_assets.core.keys import DRIFT_REPORT
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring.monitored_windows import (
    STAGED_WINDOW,
    WINDOW,
    report_query,
    rows_of_version,
    sampled_windows,
    stage_rows,
    window_dependencies,
    windows_of,
    write_report,
)
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.column_names import MODEL_VERSION
from mlops_assets.stages.execution import RETRIES, record_range_metadata
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.evaluation_page import plot_metadata
from mlops_assets.training.monitoring_reference import VersionReference, load_reference

if TYPE_CHECKING:
    from mlops_assets.ml.drift import DriftRow

_DESCRIPTIONS = {
    WINDOW: "First day of the monitoring window.",
    MODEL_VERSION: "Version that predicted, whose hold-out is the reference.",
    "slice": "Null for all rows, else which of them: column = value.",
    "feature": "The column, or * for all features together.",
    "kind": "feature, prediction, label (of the rows whose label is known), or all.",
    "method": "jensen_shannon, wasserstein, chi2, population_stability_index or reconstruction_error.",
    "value": "The distance of the window from the reference.",
    "threshold": "What chance explains; the false alarms of a window are shared by all its cells.",
    "effect": "Size of the change on the scale of the Jensen-Shannon distance; of the reconstruction error the relative change.",
    "effect_floor": "The least effect of an alert.",
    "rows": "Rows of the window that have a value.",
    "alert": "Whether the value is above its threshold and the effect reaches its floor.",
}


def build_drift_report(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The drift report of one solution."""
    key = inputs.key(DRIFT_REPORT)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description=f"Drift of features, prediction and label from the hold-out by {solution.monitoring.window} window, version and slice.",
        owners=solution.owners,
        group_name=inputs.name,
        kinds={"nannyml", "duckdb"},
        tags=inputs.tags(DRIFT_REPORT),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=window_dependencies(inputs),
        check_specs=[check_rules.DRIFT.partitioned_spec(key, inputs.windows)],
        retry_policy=RETRIES,
        code_version="2",
    )
    @step
    def drift_report(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult]:
        import pyarrow as pa

        from mlops_assets.ml.drift import to_arrow

        tables = []
        rows: list[DriftRow] = []
        with lake.connect(read_only=False) as connection:
            for version in stage_rows(connection, settings, inputs, windows_of(inputs, context.partition_keys)):
                reference = load_reference(registry, settings, registry.get(inputs.name, version))
                found = _measure(connection, inputs, version, reference)
                rows += found
                tables.append(rows_of_version(to_arrow(found), version))
            connection.register("drift_rows", pa.concat_tables(tables))
            metadata = write_report(
                context,
                lake,
                connection,
                table=inputs.table(DRIFT_REPORT),
                query=report_query("drift_rows"),
                descriptions=_DESCRIPTIONS,
            )
        shares = {key: _share_of_features([row for row in rows if row.window == key]) for key in context.partition_keys}
        for window, share in shares.items():
            context.add_asset_metadata({"drifted_share": share}, asset_key=context.asset_key, partition_key=window)
        record_range_metadata(context, {"summary": dg.MetadataValue.md(_summary(rows, shares)), **_plot(rows)})
        yield dg.MaterializeResult(metadata=metadata, check_results=[_check(inputs, rows, *each) for each in shares.items()])

    return drift_report


def _measure(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int, reference: VersionReference
) -> "list[DriftRow]":
    """All measures of the windows that `version` predicted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mlops_assets.ml.drift import judge
    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.reconstruction import reconstruction_rows
    from mlops_assets.monitoring.drift_distances import measure_distances

    declared = inputs.solution.monitoring.drift
    ignored = pc.is_in(reference.summary.columns.column("feature"), pa.array(declared.ignore, pa.string()))
    watched = replace(reference.summary, columns=reference.summary.columns.filter(pc.invert(ignored)))
    distances = measure_distances(
        connection,
        rows=f"(FROM {ROWS} WHERE {MODEL_VERSION} = {version})",
        window=STAGED_WINDOW,
        slices=inputs.solution.gates.slices,
        reference=watched,
    )
    rows = judge(distances, watched, effect_floor=declared.effect_size, false_alarms=declared.false_alarms)
    features = [name for name in inputs.features if name not in declared.ignore]
    cells = max((sum(row.window == window for row in rows) for window in {row.window for row in rows}), default=1)
    rows += reconstruction_rows(
        reference.rows,
        list(sampled_windows(connection, inputs, version).items()),
        FeatureSchema.from_arrow(reference.rows.schema, features),
        false_alarms=declared.false_alarms / cells,
    )
    return rows


def _share_of_features(rows: "Sequence[DriftRow]") -> float:
    from mlops_assets.ml.drift import drifted_features

    drifted, measured = drifted_features(rows)
    return len(drifted) / len(measured) if measured else 0.0


def _summary(rows: "Sequence[DriftRow]", shares: Mapping[str, float]) -> str:
    from mlops_assets.ml.drift import in_words

    lines = [f"| {key} | {share:.0%} | {in_words([row for row in rows if row.window == key])} |" for key, share in shares.items()]
    return "| window | drifted features | |\n|---|---|---|\n" + "\n".join(lines)


def _plot(rows: "Sequence[DriftRow]") -> dict[str, Any]:
    from mlops_assets.ml.plots import drift_plot

    return plot_metadata({"drift": drift_plot(rows)})


def _check(inputs: SolutionInputs, rows: "Sequence[DriftRow]", window: str, share: float) -> PartitionCheckResult:
    limit = inputs.solution.monitoring.drift.maximum_share_of_features
    alerts = sorted(
        (row for row in rows if row.alert and row.window == window and row.slice is None), key=lambda row: -(row.effect or 0.0)
    )
    features = list(dict.fromkeys(row.feature for row in alerts))
    result = check_rules.DRIFT.result(
        inputs.key(DRIFT_REPORT),
        passed=share <= limit,
        metadata={
            "limit": limit,
            "share_of_features": share,
            "features_with_alert": len(features),
            "examples": dg.MetadataValue.json(
                [f"{row.feature}: {row.method} {row.value:.4g}, threshold {row.threshold:.4g}" for row in alerts[:MOST_EXAMPLES]]
            ),
        },
        description=f"{share:.0%} of the features drifted: {', '.join(features[:MOST_EXAMPLES])}" if share > limit else None,
    )
    return PartitionCheckResult.of(result, window)
