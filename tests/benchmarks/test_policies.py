"""Every policy of retraining on streams whose drift is known, and the live rule on real and synthetic ones.

The tables and figures of docs/retraining.md are written by this benchmark. `MLOPS_ELEC2` names elec2.csv.gz, which is not part of the
project. `MLOPS_POLICY_CACHE` is the folder of rows, fits and results, so that the streams may be run one by one (`-k`).
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drifting_streams import evaluation
from policy_streams import EARLIER, streams

from mlops_assets.ml.history import History
from mlops_assets.ml.policy_comparison import FIXED, ArmSettings, build_arms, difference_of, run_arms, summarise_arms
from mlops_assets.ml.policy_plot import policy_plot
from mlops_assets.ml.prequential import ArmResult

CACHE = Path(os.environ.get("MLOPS_POLICY_CACHE") or Path(tempfile.gettempdir()) / "mlops-policies")
FIGURES = ("elec2", "flights", "flights-abrupt")
COMPARED = (*FIXED, "single", "monthly", "window", "live")
PAGE = Path(__file__).parents[2] / "docs" / "retraining.md"
HISTORIES = (History(days=70, earlier=EARLIER), History(days=70, half_life=23))
ARMS = build_arms(ArmSettings(window=70, period=28, cooldown=14, maximum_age=180, minimum_new_rows=280, histories=HISTORIES))
STREAMS = {
    "stationary": [0.0] * 24,
    "a change in week 9": [0.0] * 8 + [1.5] * 16,
    "a change all the time": [0.0] * 4 + list(np.linspace(0, 3, 20)),
}
MARGIN = 0.002


def write(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def fill(place: str, table: str) -> None:
    """Write the table into the page."""
    text, count = re.subn(
        rf"(<!-- {place} -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{table}\n\n{found[2]}",
        PAGE.read_text(),
        flags=re.S,
    )
    assert count == 1
    PAGE.write_text(text)


def cell(arm: ArmResult) -> str:
    return f"{np.mean([value for value in arm.metrics if value is not None]):.4f} ({len(arm.fits)})"


def test_known_drift() -> None:
    """The table, and the goal: `all` is not worse than the best fixed policy, and trains nothing where nothing changes."""
    results = {name: run_arms(evaluation(angles), ARMS, lambda text: None) for name, angles in STREAMS.items()}
    header = f"| policy | {' | '.join(results)} |\n|---|{'---|' * len(results)}"
    rows = [f"| `{name}` | {' | '.join(cell(arms[name]) for arms in results.values())} |" for name in ARMS]
    oracles = [summarise_arms(arms, "roc_auc")[-1].metric for arms in results.values()]
    rows.append(f"| oracle | {' | '.join(f'{value:.4f}' for value in oracles)} |")
    table = "\n".join([header, *rows])
    write(f"\n{table}")
    fill("policies", table)
    assert not results["stationary"]["all"].count("retrain")
    for name, arms in results.items():
        best, value, low, high = difference_of(arms, "roc_auc", "all", FIXED)
        write(f"{name}: all against {best} {value:+.4f} ({low:+.4f} to {high:+.4f})")
        assert value > -MARGIN


def identity(name: str) -> str:
    """Return a name of a file for the results of a stream."""
    return name.replace(" ", "-")


@pytest.mark.parametrize("name", streams(CACHE))
def test_stream(name: str) -> None:
    """One stream, with results that are kept for the table: the live rule is not worse than the best fixed policy by more than the margin."""
    rows = streams(CACHE)[name]()
    evaluated, built = rows.evaluation(CACHE), build_arms(rows.settings)
    began = time.process_time()
    arms = run_arms(evaluated, {arm: built[arm] for arm in COMPARED}, lambda text: None)
    seconds = time.process_time() - began
    best, value, low, high = difference_of(arms, rows.metric, "live", FIXED)
    *summaries, oracle = summarise_arms(arms, rows.metric)
    live = next(summary for summary in summaries if summary.policy == "live")
    result = {
        "name": rows.name,
        "metric": rows.metric,
        "windows": len(evaluated.windows),
        "drifts": rows.drifts,
        "best": best,
        "difference": [value, low, high],
        "arms": {summary.policy: summary.metric for summary in (*summaries, oracle)},
        "losses": {summary.policy: summary.loss for summary in (*summaries, oracle)},
        "trainings": {summary.policy: summary.trainings for summary in summaries},
        "live": [live.trainings, live.refused, live.rollbacks, live.recalibrations],
        "seconds": seconds,
    }
    write(f"\n{json.dumps(result)}")
    folder = CACHE / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{identity(name)}.json").write_text(json.dumps(result))
    (folder / f"{identity(name)}.png").write_bytes(
        policy_plot({arm: arms[arm] for arm in (*FIXED, "live")}, [start for start, _ in evaluated.windows], rows.metric)
    )
    assert high >= -MARGIN * (1 if rows.metric == "roc_auc" else 10)


def stream_row(result: dict[str, Any]) -> str:
    """Return the line of a stream in the table."""
    value, low, high = result["difference"]
    trainings, refused, rollbacks, recalibrations = result["live"]
    digits = 4 if result["metric"] != "mean_absolute_error" else 3
    arms = [f"{result['arms'][arm]:.{digits}f}" for arm in (*COMPARED, "oracle")]
    events = f"{trainings}, {refused}, {rollbacks}, {recalibrations}"
    return (
        f"| {result['name']}, {result['metric']}, {result['windows']} windows | {' | '.join(arms)} | "
        f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}) | {result['trainings']['sliding']} | {events} |"
    )


@pytest.mark.skipif("MLOPS_ELEC2" not in os.environ, reason="MLOPS_ELEC2 names elec2.csv.gz, which is not part of the project.")
def test_fits_on_the_electricity_market() -> None:
    """The table of metrics and fits, and the goal: better than all history every week, with fewer fits."""
    rows = streams(CACHE)["elec2"]()
    evaluated, settings = rows.evaluation(CACHE), rows.settings
    built = build_arms(settings)
    arms = {
        "all history, every week": build_arms(replace(settings, period=7))["expanding"],
        "`expanding`: all history, every four weeks": built["expanding"],
        "`monthly`: `training.histories`, every four weeks": built["monthly"],
        "`live`": built["live"],
        "`live`, with `max_age: 28d`": build_arms(replace(settings, maximum_age=28))["live"],
    }
    results = {name: evaluated.run(arm.policy, arm.first_histories) for name, arm in arms.items()}
    metrics = {name: float(np.mean([value for value in arm.metrics if value is not None])) for name, arm in results.items()}
    lines = [f"| {name} | {metrics[name]:.4f} | {len(arm.fits)} |" for name, arm in results.items()]
    table = "\n".join(["| elec2 | mean ROC AUC | fits |", "|---|---|---|", *lines])
    write(f"\n{table}")
    fill("elec2", table)
    weekly, _, monthly, *_ = results
    assert metrics[monthly] > metrics[weekly]
    assert len(results[monthly].fits) < len(results[weekly].fits)


def test_table_of_all_streams() -> None:
    """The table and the figures of the page, from the results of all streams that were run on the cache."""
    paths = [CACHE / "results" / f"{identity(name)}.json" for name in streams(CACHE)]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    header = (
        f"| stream | {' | '.join(f'`{arm}`' for arm in COMPARED)} | oracle | `live` less the best of the first three | "
        f"trainings every four weeks | of `live`: trainings, refused, rollbacks, recalibrations |\n|---|{'---|' * (len(COMPARED) + 4)}"
    )
    fill("streams", "\n".join([header, *map(stream_row, results)]))
    for name in FIGURES:
        if (figure := CACHE / "results" / f"{name}.png").exists():
            shutil.copy(figure, PAGE.parent / "images" / f"policies_{name}.png")
