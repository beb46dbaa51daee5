"""`monitoring_report`: the page of a window, put together from the reports of its monitors. One partition a window."""

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.environment_files import environment_prefix
from mlops_assets.core.keys import DATA_QUALITY_REPORT, DRIFT_REPORT, MONITORING_REPORT, OUTCOMES, PERFORMANCE_REPORT, PREDICTIONS
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import table_exists
from mlops_assets.monitoring.monitor import measuring_monitors, monitors_of
from mlops_assets.monitoring.monitored_windows import (
    STAGED_WINDOW,
    WINDOW,
    MonitoredVersion,
    Windows,
    load_monitored_version,
    sampled_windows,
    stage_rows,
    window_dependencies,
    windows_from_keys,
)
from mlops_assets.monitoring.report_pages import write_report
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.stages.execution import RETRIES
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    from mlops_assets.ml.report import Reports
    from mlops_assets.monitoring.alerts import Alert

_HISTORY = 12
"""Windows that a trend goes back: the cost of a page does not grow with the history."""

_SHOWN_ALERTS = 4
"""Of each source."""


def build_monitoring_report(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The pages of one solution."""
    key = inputs.key(MONITORING_REPORT)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description=f"One HTML page a {solution.monitoring.window} window: how good the model is, what changed, where, and which rows show it.",
        kinds={"html"},
        **inputs.asset_attributes(MONITORING_REPORT),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            *(inputs.key(solution_monitor.stage) for solution_monitor in monitors_of(solution)),
            *window_dependencies(inputs),
        ],
        retry_policy=RETRIES,
        code_version="1",
    )
    @step
    def monitoring_report(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> None:
        from mlops_assets.monitoring.alerts import find_alerts

        windows = windows_from_keys(inputs, context.partition_keys)
        with lake.connect(read_only=True) as connection:
            versions = stage_rows(connection, settings, inputs, windows)
            monitored_versions = {version: load_monitored_version(inputs, registry, settings, version) for version in versions}
            for window in windows.ranges:
                if not _is_predicted(connection, window):
                    continue
                alerts = find_alerts(connection, inputs, window, monitored_versions)
                place = _write_page(
                    connection, inputs, settings, windows, window=window, monitored_versions=monitored_versions, alerts=alerts
                )
                context.add_asset_metadata(
                    {
                        "report": dg.MetadataValue.path(place),
                        "alerts": len(alerts),
                        "summary": dg.MetadataValue.md(_summary(alerts)),
                    },
                    asset_key=context.asset_key,
                    partition_key=window,
                )

    return monitoring_report


def _is_predicted(connection: duckdb.DuckDBPyConnection, window: str) -> bool:
    return bool(connection.execute(f"SELECT 1 FROM {ROWS} WHERE {STAGED_WINDOW} = DATE '{window}' LIMIT 1").fetchall())


def _write_page(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    settings: Settings,
    windows: Windows,
    *,
    window: str,
    monitored_versions: dict[int, MonitoredVersion],
    alerts: "list[Alert]",
) -> str:
    from mlops_assets.ml.report import AlertLine, ReportPage, render_monitoring_report
    from mlops_assets.monitoring.alerts import EXAMPLES, alert_rows

    first, last = windows.ranges[window].start, windows.end(window) - timedelta(days=1)
    samples = {version: sampled_windows(connection, inputs, version) for version in monitored_versions}
    predicted = [version for version, tables in samples.items() if window in tables]
    page = ReportPage(
        title=f"{environment_prefix()}{inputs.solution.description}",
        period=f"{first:%-d %B %Y} to {last:%-d %B %Y}" if last > first else f"{first:%-d %B %Y}",
        metric=inputs.solution.training.metric,
        versions=predicted,
        reports=_reports(connection, inputs, window),
        counts=Counter(alert.source for alert in alerts),
        alerts=[
            AlertLine(alert.source, alert.feature, alert.sentence, alert_rows(connection, inputs, window, alert, limit=EXAMPLES))
            for alert in _worst(alerts)
        ],
        samples=(monitored_versions[predicted[-1]].reference.rows, samples[predicted[-1]][window]),
        links=_links(inputs, settings, windows, window),
        command=f"mlops debug {inputs.name} --window {window}",
    )
    return write_report(settings, inputs.name, window, render_monitoring_report(page))


def _reports(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: str) -> "Reports":
    from mlops_assets.ml.report import Reports

    def rows(stage: str) -> list[dict]:
        table = inputs.table(stage)
        if not table_exists(connection, table):
            return []
        return (
            connection.execute(
                f"FROM lake.{table} WHERE {WINDOW} IN (SELECT DISTINCT {WINDOW} FROM lake.{table} WHERE {WINDOW} <= DATE '{window}' "
                f"ORDER BY 1 DESC LIMIT {_HISTORY}) ORDER BY ALL"
            )
            .to_arrow_table()
            .to_pylist()
        )

    return Reports(
        window=window,
        drift=rows(DRIFT_REPORT),
        performance=rows(PERFORMANCE_REPORT),
        quality=rows(DATA_QUALITY_REPORT),
        measures={
            solution_monitor.monitor.title: rows(solution_monitor.stage)
            for solution_monitor in measuring_monitors(inputs.solution)
        },
    )


def _links(inputs: SolutionInputs, settings: Settings, windows: Windows, window: str) -> dict[str, str]:
    part = windows.ranges[window]
    assets = f"{settings.dagster_url}/assets/{inputs.name}"
    return {
        **{
            solution_monitor.monitor.title: f"{assets}/{solution_monitor.stage}?partition={window}"
            for solution_monitor in monitors_of(inputs.solution)
        },
        f"Predictions from {part.start}": f"{assets}/{PREDICTIONS}?partition={part.start}",
        "Outcomes": f"{assets}/{OUTCOMES}?partition={part.start}",
        # They are watched where they are made, once for all solutions that use them.
        **{
            f"View {chosen.view.name}": f"{settings.dagster_url}/assets/{'/'.join(inputs.view_key(chosen).path)}"
            for chosen in inputs.views
        },
        "Model versions in MLflow": f"{settings.mlflow_url}/#/models/{inputs.name}",
    }


def _summary(alerts: "list[Alert]") -> str:
    if not alerts:
        return "No alert."
    return "\n".join(f"- **{alert.source}** {alert.feature}: {alert.sentence}" for alert in _worst(alerts))


def _worst(alerts: "list[Alert]") -> "list[Alert]":
    """The first alerts of each source."""
    by_source: dict[str, list[Alert]] = {}
    for alert in alerts:
        by_source.setdefault(alert.source, []).append(alert)
    return [alert for part in by_source.values() for alert in part[:_SHOWN_ALERTS]]
