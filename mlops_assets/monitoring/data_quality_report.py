"""`data_quality_report`: what is wrong with the rows of a window as data, whatever the model makes of them. One partition a window."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.keys import DATA_QUALITY_REPORT
from mlops_assets.core.prediction_columns import BATCH
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring.data_quality import RULES, Expected, Finding, inspect, results
from mlops_assets.monitoring.monitored_windows import (
    STAGED_WINDOW,
    WINDOW,
    Windows,
    load_monitored_version,
    report_query,
    stage_rows,
    window_dependencies,
    windows_of,
    write_report,
)
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.column_names import CHANNEL, MODEL_VERSION, PREDICTION_ID
from mlops_assets.stages.execution import RETRIES, record_range_metadata
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import pyarrow as pa

_DESCRIPTIONS = {
    WINDOW: "First day of the monitoring window.",
    MODEL_VERSION: "Version that predicted: its contract and its hold-out are what the rows are held against.",
    "check": "Name of the check.",
    "feature": "The feature, or * for whole rows.",
    "value": "Share of the rows that it concerns; of window_rows the number of rows.",
    "limit": "The value beyond which it alerts.",
    "rows": "How many rows it concerns.",
    "examples": "The most frequent wrong values, or what changed.",
    "alert": "Whether the limit is passed.",
}


def build_data_quality_report(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The data quality report of one solution."""
    key = inputs.key(DATA_QUALITY_REPORT)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description=f"Missing, unseen, out of range, duplicate and constant values, rows and schema by {solution.monitoring.window} window.",
        owners=solution.owners,
        group_name=inputs.name,
        kinds={"duckdb"},
        tags=inputs.tags(DATA_QUALITY_REPORT),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=window_dependencies(inputs),
        check_specs=[rule.partitioned_spec(key, inputs.windows) for rule in RULES.values()],
        retry_policy=RETRIES,
        code_version="1",
    )
    @step
    def data_quality_report(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult]:
        windows = windows_of(inputs, context.partition_keys)
        with lake.connect(read_only=False) as connection:
            found: dict[tuple[str, int], list[Finding]] = {}
            for version in stage_rows(connection, settings, inputs, windows):
                found |= _inspect(connection, inputs, registry, settings, windows=windows, version=version)
            connection.register("findings", _to_arrow(found))
            metadata = write_report(
                context,
                lake,
                connection,
                table=inputs.table(DATA_QUALITY_REPORT),
                query=report_query("findings"),
                descriptions=_DESCRIPTIONS,
            )
        by_window = {
            window: [each for (key, _), part in found.items() if key == window for each in part] for window in windows.ranges
        }
        record_range_metadata(context, {"summary": dg.MetadataValue.md(_summary(by_window))})
        yield dg.MaterializeResult(metadata=metadata, check_results=results(key, by_window))

    return data_quality_report


def _inspect(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    registry: ModelRegistry,
    settings: Settings,
    *,
    windows: Windows,
    version: int,
) -> dict[tuple[str, int], list[Finding]]:
    """The findings of every window on the rows that `version` predicted."""
    from mlops_assets.ml.reference import WHOLE

    monitored_version = load_monitored_version(inputs, registry, settings, version)
    reference = monitored_version.reference
    described = {each["feature"]: each for each in reference.summary.columns.to_pylist() if each["slice"] == WHOLE}
    shares = dict(
        connection.execute(
            f"SELECT CAST({STAGED_WINDOW} AS VARCHAR), count(*) FILTER (WHERE {MODEL_VERSION} = {version}) / count(*) FROM {ROWS} "
            f"WHERE {CHANNEL} = '{BATCH}' GROUP BY 1"
        ).fetchall()
    )
    found = {}
    for window, share in shares.items():
        # Of a window that several versions predicted, each is expected to have its share of the rows.
        expected = reference.summary.rows / reference.partitions * _partitions(inputs, windows, window) * share
        if share:
            found[window, version] = inspect(
                connection,
                rows=f"(FROM {ROWS} WHERE {MODEL_VERSION} = {version} AND {STAGED_WINDOW} = DATE '{window}')",
                expected=Expected(
                    contract=monitored_version.contract,
                    reference=described,
                    rows=expected,
                    counted=f"{CHANNEL} = '{BATCH}'",
                    key=PREDICTION_ID,
                    moving=inputs.solution.monitoring.drift.ignore,
                ),
                limits=inputs.solution.monitoring.data_quality,
            )
    return found


def _partitions(inputs: SolutionInputs, windows: Windows, window: str) -> int:
    """How many partitions of predictions lie in a window, before the last one that the solution declares."""
    part, last = windows.ranges[window], inputs.solution.partitions.end
    end = min(part.end, last) if last else part.end
    count, day = 0, part.start
    while day < end:
        day = inputs.partitions.time_window_for_partition_key(day.isoformat()).end.date()
        count += 1
    return count


def _to_arrow(found: Mapping[tuple[str, int], list[Finding]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {"window": window, MODEL_VERSION: version, **asdict(each)}
            for (window, version), part in found.items()
            for each in part
        ],
        schema=pa.schema(
            [
                ("window", pa.string()),
                (MODEL_VERSION, pa.int32()),
                ("check", pa.string()),
                ("feature", pa.string()),
                ("value", pa.float64()),
                ("limit", pa.float64()),
                ("rows", pa.int64()),
                ("examples", pa.string()),
                ("alert", pa.bool_()),
            ]
        ),
    )


def _summary(findings: Mapping[str, list[Finding]]) -> str:
    lines = []
    for window, part in findings.items():
        alerts = [f"{each.check.replace('_', ' ')}: {each.feature}" for each in part if each.alert]
        lines.append(f"| {window} | {len(alerts)} | {'; '.join(alerts[:5])}{' ...' if len(alerts) > 5 else ''} |")
    return "| window | findings | |\n|---|---|---|\n" + "\n".join(lines)
