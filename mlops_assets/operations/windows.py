"""The alerts of one monitoring window and the rows behind them, read from the lake: what `mlops debug` shows."""

from typing import Any

import dagster as dg

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import DRIFT_REPORT, MONITORING_REPORT, stage_table
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import table_exists
from mlops_assets.monitoring.alerts import alert_rows, find_alerts
from mlops_assets.monitoring.monitored_windows import load_monitored_version, stage_rows, windows_from_keys
from mlops_assets.monitoring.report_pages import fetch_report
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.serving.bundle import BundleError


def window_alerts(settings: Settings, solution: str, window: str | None, *, limit: int) -> dict[str, Any]:
    """The alerts of `window` (None: the newest that was reported on), worst first, each with at most `limit` rows. Values suit JSON.

    Raises StackError when there is no such report.
    """
    registry = ModelRegistry.from_settings(settings)
    inputs = resolve_inputs(declared_solution(solution), FeatureRegistry.from_manifest(current_project().dbt_manifest))
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        table = stage_table(solution, DRIFT_REPORT)
        reported = []
        if table_exists(connection, table):
            rows = connection.execute(f"SELECT DISTINCT CAST(window_start AS VARCHAR) FROM lake.{table} ORDER BY 1").fetchall()
            reported = [key for (key,) in rows]
        if not reported or (window is not None and window not in reported):
            raise StackError(
                f"{solution} has no report on the window {window or ''}.".replace(" .", "."),
                remedy=f"Reported on: {', '.join(reported[-5:]) or 'none'}. Materialize the job {solution}_monitoring for the window.",
            )
        chosen = window or reported[-1]
        try:
            versions = stage_rows(connection, settings, inputs, windows_from_keys(inputs, [chosen]))
            monitored_versions = {version: load_monitored_version(inputs, registry, settings, version) for version in versions}
        except dg.Failure as error:
            raise StackError(str(error.description), remedy="mlops status") from error
        except (EvidenceError, BundleError) as error:
            raise StackError(str(error), remedy="mlops open mlflow") from error
        alerts = [
            {
                "source": alert.source,
                "feature": alert.feature,
                "sentence": alert.sentence,
                "version": alert.version,
                "rows": alert_rows(connection, inputs, chosen, alert, limit=limit),
            }
            for alert in find_alerts(connection, inputs, chosen, monitored_versions)
        ]
    return {
        "solution": solution,
        "window": chosen,
        "report": str(fetch_report(settings, solution, chosen)),
        "dagster": DagsterClient.from_settings(settings).asset_url(f"{solution}/{MONITORING_REPORT}", chosen),
        "alerts": alerts,
    }
