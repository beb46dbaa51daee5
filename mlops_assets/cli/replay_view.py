"""The view of `mlops replay`: a line per monitoring window as time passes, then the comparison, as Rich tables or JSON."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mlops_assets.cli.terminal import run_progress, show_stage
from mlops_assets.clients.dagster_client import RunState
from mlops_assets.core.settings import Settings
from mlops_assets.operations.changed_rows import RelationChange
from mlops_assets.operations.replay import RUN_NAMES, FollowingRun, Replay, ReplayStep
from mlops_assets.operations.replay_faults import Fault
from mlops_assets.operations.replay_plan import Period, ReplayPlan
from mlops_assets.operations.runs import wait_for_run

_COLOURS = {"retrain": "yellow", "recalibrate": "yellow", "roll back": "yellow", "ask": "red", "wait": "cyan", "keep": "green"}


def run_replay(settings: Settings, console: Console, plan: ReplayPlan, fault: Fault | None) -> dict[str, Any]:
    """Replay what is missing, show it on `console`, and return what happened with values that JSON can hold."""
    from mlops_assets.operations.replay_comparison import Comparison

    began = time.monotonic()
    replay = Replay(settings, plan, fault)
    period = replay.plan.period
    console.print(
        f"[bold]{plan.solution}[/bold]: the days from {period.first} to {period.last} arrive a {plan.length} at a time",
        highlight=False,
    )
    steps = []
    follow = _follower(replay, console)
    with replay.automation():
        before = replay.run_before(follow)
        _show_following_run(console, before)
        for days in replay.plan.steps():
            step = replay.run_step(days, lambda stage: show_stage(replay.client, stage, console), follow)
            _show_step(console, step)
            steps.append(step)
    comparison = Comparison(settings, plan.solution)
    months = list(ReplayPlan(plan.solution, period, "month").steps())
    with console.status("Comparing with a frozen and a monthly model") as display:
        compared = comparison.compute(months, display.update)
    _show_comparison(console, comparison.metric, [asdict(each) for each in compared])
    runs = [run for run in (before, *(step.followed_by for step in steps)) if run]
    trainings = [run for run in runs if run.outcome == "retrain"]
    others = "; ".join(
        f"{name}s: {sum(run.outcome == outcome for run in runs)}" for outcome, name in RUN_NAMES.items() if outcome != "retrain"
    )
    seconds = time.monotonic() - began
    console.print(
        f"Trainings that followed decisions: {len(trainings)}, deployed: {sum(not run.problems for run in trainings)}; {others}. "
        f"{len(steps)} steps took {seconds:.0f} s.",
        highlight=False,
    )
    return {
        "seconds": round(seconds, 1),
        "before": asdict(before) if before else None,
        "steps": [_described(step) for step in steps],
        "metric": comparison.metric,
        "comparison": [asdict(each) for each in compared],
    }


def run_policy_comparison(
    settings: Settings,
    console: Console,
    solution: str,
    period: Period,
    names: Sequence[str],
    *,
    change: RelationChange | None = None,
) -> dict[str, Any]:
    """Compare policies of retraining, show them on `console`, and return the comparison with values that JSON can hold."""
    from mlops_assets.operations.policy_comparison import compare_policies

    began = time.monotonic()
    with console.status("Comparing policies") as display:
        comparison = compare_policies(
            settings, solution, period, names, lambda text: display.update(f"Comparing policies: {text}"), change=change
        )
    table = Table(
        Column("policy", no_wrap=True), Column("mean, 95 %", no_wrap=True), "log loss" if comparison.loss == "log_loss" else "error",
        "worst window", "fits", "seconds", Column("changes", min_width=17),
        title=f"{comparison.metric}, {len(comparison.windows)} windows", box=None, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for summary in comparison.summaries:
        changes = {
            "trainings": summary.trainings,
            "refused": summary.refused,
            "rollbacks": summary.rollbacks,
            "recalibrations": summary.recalibrations,
        }
        table.add_row(
            summary.policy,
            f"{summary.metric:.4f} ± {max(summary.metric_high - summary.metric, summary.metric - summary.metric_low):.4f}",
            f"{summary.loss:.4f}",
            _number(summary.worst),
            str(summary.fits),
            f"{summary.seconds:.1f}",
            ", ".join(f"{name}: {count}" for name, count in changes.items() if count),
        )
    console.print(table)
    console.print(f"The figure: {comparison.plot_path}", highlight=False, soft_wrap=True)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "metric": comparison.metric,
        "loss": comparison.loss,
        "plot": str(comparison.plot_path),
        "policies": [asdict(summary) for summary in comparison.summaries],
        "windows": [
            {"first": first, "metric": {name: arm.metrics[place] for name, arm in comparison.results.items()}}
            for place, first in enumerate(comparison.windows)
        ],
        "events": {name: [asdict(event) for event in arm.events] for name, arm in comparison.results.items()},
    }


def _follower(replay: Replay, console: Console) -> Callable[[str, str], RunState]:
    def follow(run_id: str, name: str) -> RunState:
        with run_progress(name, console) as report:
            return wait_for_run(replay.client, run_id, report)

    return follow


def _show_step(console: Console, step: ReplayStep) -> None:
    table = Table(
        "window", "rows", "drifted", "estimated", "realised", "bad windows", Column("decision", no_wrap=True, min_width=11), "version",
        box=None, pad_edge=False,
    )  # fmt: skip
    for window in step.windows:
        colour = _COLOURS[window["outcome"]]
        table.add_row(
            window["window_start"],
            f"{window['predictions']:,}",
            _share(window["drifted_share"]),
            _number(window["estimated"]),
            _number(window["realised"]),
            str(window["bad_windows"]),
            f"[{colour}]{window['outcome']}[/{colour}]",
            str(window["model_version"]),
        )
    if step.windows:
        console.print(table)
    for window in step.windows:
        if window["outcome"] != "keep":
            console.print(
                f"{window['window_start']} {window['outcome']}: {escape(window['reason'])}", highlight=False, soft_wrap=True
            )
    if step.stopped:
        stopped = "; ".join(step.stopped.problems)
        outcome = (
            f"[green]stopped[/green] by {escape(stopped)}. The champion stayed" if stopped else "[red]nothing stopped it[/red]"
        )
        console.print(f"Injected {escape(step.stopped.fault)}; {outcome}. Then repaired.", highlight=False, soft_wrap=True)
    _show_following_run(console, step.followed_by)
    console.print(
        f"{step.period.last}: version {step.champion} predicts, after a step of {step.seconds:.0f} s",
        style="bold",
        highlight=False,
    )


def _show_following_run(console: Console, run: FollowingRun | None) -> None:
    if run is None:
        return
    problems = "; ".join(run.problems)
    outcome = f"[red]refused[/red]: {escape(problems)}. The champion stays" if problems else "[green]deployed[/green]"
    console.print(
        f"{RUN_NAMES[run.outcome].capitalize()} in {run.seconds:.0f} s, {outcome}. {run.run_url}", highlight=False, soft_wrap=True
    )


def _show_comparison(console: Console, metric: str, compared: Sequence[dict[str, Any]]) -> None:
    table = Table("from", "rows", "with the loop", "first model, frozen", "trained every month", title=f"{metric}, realised")
    ways = ("loop", "frozen", "monthly")
    for month in compared:
        table.add_row(month["first"], f"{month['rows']:,}", *(_number(month[way]) for way in ways))
    table.add_section()
    means = []
    for way in ways:
        values = [month[way] for month in compared if month[way] is not None]
        means.append(sum(values) / len(values) if values else None)
    table.add_row("mean", "", *map(_number, means))
    console.print(table)


def _described(step: ReplayStep) -> dict[str, Any]:
    return {
        "first": step.period.first,
        "last": step.period.last,
        "seconds": round(step.seconds, 1),
        "runs": {result.stage.name: result.seconds for result in step.stages},
        "stopped": asdict(step.stopped) if step.stopped else None,
        "windows": step.windows,
        "followed_by": asdict(step.followed_by) if step.followed_by else None,
        "champion": step.champion,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
