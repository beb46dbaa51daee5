"""The view of `mlops run` and `mlops demo`: progress of their runs, then the summary, as Rich tables or JSON."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlops_assets.access.credentials import access_token
from mlops_assets.cli.replay_view import run_replay
from mlops_assets.cli.terminal import show_stage
from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.core.settings import Settings
from mlops_assets.local.links import link
from mlops_assets.operations.demo import DemoPlan
from mlops_assets.operations.replay_plan import Period, ReplayPlan
from mlops_assets.operations.run_plan import RunRequest, plan_run
from mlops_assets.operations.run_summary import RunSummary, summarise
from mlops_assets.operations.stage_runs import StageRunResult

_SHOWN_METRICS = 4
_SHOWN_STEPS = 6
_NEARLY_ALL = 0.9
"""With such a share of labels a realised metric speaks of its window."""


def run_solution(settings: Settings, console: Console, request: RunRequest) -> dict[str, Any]:
    """Run what is missing, show it on `console`, and return the summary with values that JSON can hold."""
    client = DagsterClient.from_settings(settings)
    began = time.monotonic()
    plan = plan_run(settings, client, request)
    console.print(
        f"[bold]{plan.solution}[/bold]: predictions from {plan.partitions[0].first} to {plan.last}, "
        f"by the model of {plan.training_date}",
        highlight=False,
    )
    results = [show_stage(client, stage, console) for stage in plan.stages]
    if not plan.windows:
        console.print("No whole monitoring window lies in these days: nothing is monitored.", style="yellow", highlight=False)
    seconds = time.monotonic() - began
    summary = summarise(settings, client, plan)
    _show(settings, console, results, summary, seconds)
    return {
        "seconds": round(seconds, 1),
        "stages": [
            {"name": result.stage.name, "seconds": result.seconds, "steps": result.steps, "run": result.run_url}
            for result in results
        ],
        **asdict(summary),
    }


def run_demo(settings: Settings, console: Console, plan: DemoPlan) -> dict[str, Any]:
    """Run the solution of `demo.yaml` as `mlops run` does, then let time go on as `mlops replay` does, if the file wants it."""
    summary = run_solution(settings, console, plan.request)
    replayed = None
    if plan.replay_to is not None:
        console.print()
        days = Period(plan.training_date, plan.replay_to)
        replayed = run_replay(settings, console, ReplayPlan(plan.solution, days, "month"), None)
    return {**summary, "replay": replayed}


def _show(settings: Settings, console: Console, results: Sequence[StageRunResult], summary: RunSummary, seconds: float) -> None:
    console.print()
    console.print(_time_table(results, seconds))
    console.print(_rows_table(summary))
    console.print(_metrics_table(summary))
    if summary.drift:
        console.print(_windows_table(summary))
    console.print(f"Champion: version {summary.version}", highlight=False)
    for name, url in summary.urls.items():
        console.print(f"{name}: {link(url, access_token(settings))}", highlight=False, soft_wrap=True)
    for path in summary.reports:
        console.print(f"Report: {path}", highlight=False, soft_wrap=True)


def _time_table(results: Sequence[StageRunResult], seconds: float) -> Table:
    table = Table("run", "seconds", "where it goes", title="Time")
    for result in results:
        if result.seconds is None:
            table.add_row(result.stage.name, "", "already there: nothing recomputed")
            continue
        longest = sorted(result.steps.items(), key=lambda item: -item[1])[:_SHOWN_STEPS]
        named = [f"{name.rpartition('__')[2]} {spent:.1f}" for name, spent in longest if spent >= 0.05]
        outside = result.seconds - sum(result.steps.values())
        table.add_row(result.stage.name, f"{result.seconds:.1f}", ", ".join([*named, f"launch {outside:.1f}"]))
    table.add_section()
    table.add_row("all", f"{seconds:.1f}", "")
    return table


def _rows_table(summary: RunSummary) -> Table:
    table = Table("table", "rows", title="Rows in the lake")
    for name, count in summary.rows.items():
        table.add_row(name, f"{count:,}")
    return table


def _metrics_table(summary: RunSummary) -> Table:
    table = Table("metric", title="Metrics")
    for name in summary.metrics:
        table.add_column(name)
        table.add_column("naive baseline", style="dim")
    shown = [name for name in next(iter(summary.metrics.values())) if f"baseline_{name}" in summary.metrics["hold-out"]]
    for name in shown[:_SHOWN_METRICS]:
        cells = []
        for values in summary.metrics.values():
            cells += [_number(values.get(name)), _number(values.get(f"baseline_{name}"))]
        table.add_row(name, *cells)
    return table


def _windows_table(summary: RunSummary) -> Table:
    metric = summary.drift[0]["metric"]
    table = Table(
        "window", f"estimated {metric}", "realised", "hold-out", "drifted features", "most", title="Windows after the hold-out"
    )
    for row in summary.drift:
        realised = _number(row["realised"]) + _labels_known(row)
        table.add_row(
            row["window"],
            _number(row["estimated"]),
            f"[red]{realised}[/red]" if row["alert"] else realised,
            _number(row["reference"]),
            f"{row['drifted']} of {row['features']}",
            escape(", ".join(row["most"] or [])),
        )
    return table


def _labels_known(row: dict[str, Any]) -> str:
    """Why a realised metric may say little: labels that are still to come, or that never came."""
    if not row["complete"]:
        return " (partial)"
    return "" if row["matured_share"] >= _NEARLY_ALL else f" ({row['matured_share']:.0%} have a label)"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
