"""The asset of a monitor: its report on the windows of a run, written into a table of its own with the results of its checks."""

from collections.abc import Iterator

import dagster as dg

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring.monitor import MonitoringRun, MonitorOfSolution
from mlops_assets.monitoring.monitored_windows import (
    WINDOW,
    report_columns,
    report_query,
    stage_rows,
    window_dependencies,
    windows_from_keys,
    write_report,
)
from mlops_assets.stages.column_lineage import report_lineage
from mlops_assets.stages.execution import RETRIES, record_range_metadata
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.stages.partition_versions import add_partition_metadata


def build_report(inputs: SolutionInputs, of_solution: MonitorOfSolution) -> dg.AssetsDefinition:
    """The report of one monitor of a solution. One partition a window."""
    key, monitor = inputs.key(of_solution.stage), of_solution.monitor

    @dg.asset(
        key=key,
        description=f"{monitor.description} By {inputs.solution.monitoring.window} window.",
        kinds=set(monitor.kinds),
        **inputs.asset_attributes(of_solution.stage),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[*window_dependencies(inputs), *monitor.reads(inputs)],
        check_specs=[rule.partitioned_spec(key, inputs.windows) for rule in monitor.rules(of_solution.short_name)],
        retry_policy=RETRIES,
        code_version=monitor.code_version,
    )
    @step
    def report(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult]:
        windows = windows_from_keys(inputs, context.partition_keys)
        with lake.connect(read_only=False) as connection:
            versions = stage_rows(connection, settings, inputs, windows)
            run = MonitoringRun(context, connection, inputs, registry, settings, windows=windows, versions=versions)
            measured = monitor.measure(run, of_solution)
            connection.register("measured_rows", measured.rows)
            metadata = write_report(
                context,
                lake,
                connection,
                table=inputs.table(of_solution.stage),
                query=report_query("measured_rows"),
                columns=report_columns(monitor.columns),
                lineage=report_lineage(inputs, report_columns(monitor.columns), window=WINDOW),
            )
        add_partition_metadata(context, context.asset_key, measured.window_metadata)
        record_range_metadata(context, measured.metadata)
        yield dg.MaterializeResult(metadata=metadata, check_results=list(measured.check_results))

    return report
