"""The summary of a run of a solution: rows, metrics beside their baselines, drift by window, reports, links."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.keys import DRIFT_REPORT, EVALUATION, MONITORING_REPORT, OUTCOMES, PREDICTIONS, TRAINING_DATASET
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.sql import literal, quote
from mlops_assets.operations.query import run_query
from mlops_assets.operations.run_plan import RunPlan, raw_tables
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.stages.inputs import SolutionInputs


@dataclass(frozen=True)
class RunSummary:
    """What came out of a run. `metrics` are the evaluation's and the realised ones, each beside the naive baseline's."""

    version: int
    rows: dict[str, int]
    metrics: dict[str, dict[str, float]]
    drift: list[dict[str, Any]]
    reports: list[str]
    urls: dict[str, str]


def summarise(settings: Settings, client: DagsterClient, plan: RunPlan) -> RunSummary:
    """Read the results from the lake and from Dagster's metadata."""
    inputs = resolve_inputs(declared_solution(plan.solution), FeatureRegistry.from_manifest(current_project().dbt_manifest))
    evaluation = client.metadata(f"{plan.solution}/{EVALUATION}", plan.training_date)
    outcomes = client.metadata(f"{plan.solution}/{OUTCOMES}", plan.partitions[-1].key)
    return RunSummary(
        version=int(evaluation["model_version"]),
        rows=_row_counts(settings, plan, inputs),
        metrics={"hold-out": _numbers(evaluation), "realised": _numbers(outcomes)},
        drift=_drift(settings, inputs, plan.windows),
        reports=[str(client.metadata(f"{plan.solution}/{MONITORING_REPORT}", key).get("report", "")) for key in plan.windows],
        urls={
            "Dagster lineage": f"{settings.dagster_url}/asset-groups",
            "Model in MLflow": f"{settings.mlflow_url}/#/models/{plan.solution}",
        },
    )


def _row_counts(settings: Settings, plan: RunPlan, inputs: SolutionInputs) -> dict[str, int]:
    tables = [key.replace("/", ".") for key in raw_tables({key for stage in plan.stages for key in stage.assets})]
    tables += [inputs.spine.table, *(inputs.table(stage) for stage in (TRAINING_DATASET, PREDICTIONS, OUTCOMES))]
    counts = " UNION ALL ".join(
        f"SELECT {literal(table)} AS name, count(*) AS n FROM {'.'.join(map(quote, table.split('.')))}"
        for table in dict.fromkeys(tables)
    )
    return dict(run_query(settings, counts)[1])


def _drift(settings: Settings, inputs: SolutionInputs, windows: Sequence[str]) -> list[dict[str, Any]]:
    """One row a window: how many features drifted and which moved most, and the selection metric as estimated, realised and on the hold-out."""
    if not windows:
        return []
    between = f"window_start BETWEEN '{windows[0]}' AND '{windows[-1]}' AND slice IS NULL"
    columns, rows = run_query(
        settings,
        "WITH features AS (SELECT window_start, feature, bool_or(alert) AS drifted, max(effect) AS effect "
        f"FROM {inputs.table(DRIFT_REPORT)} WHERE kind = 'feature' AND {between} GROUP BY ALL), "
        "drift AS (SELECT window_start, count(*) FILTER (WHERE drifted) AS drifted, count(*) AS features, "
        "list(feature ORDER BY effect DESC) FILTER (WHERE drifted)[:3] AS most FROM features GROUP BY 1) "
        'SELECT CAST(window_start AS VARCHAR) AS "window", d.drifted, d.features, d.most, p.metric, p.estimated, p.realised, p.reference, '
        f"p.complete, p.matured_share, p.alert FROM drift d JOIN {inputs.name}.performance_report p USING (window_start) "
        f"WHERE p.metric = {literal(inputs.solution.training.metric)} AND {between} ORDER BY 1, p.model_version",
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _numbers(metadata: dict[str, Any]) -> dict[str, float]:
    """The metrics of an asset that evaluates, then those of its naive baseline with `baseline_` before the name."""
    metrics = {name: float(value) for name, value in metadata.items() if isinstance(value, float)}
    return metrics | {f"baseline_{name}": value for name, value in metadata.get("naive_baseline", {}).items()}
