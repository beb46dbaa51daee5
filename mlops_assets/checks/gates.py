"""The gates of a candidate on its hold-out: metric floors, the naive baseline, calibration, the champion."""

from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.checks import rules
from mlops_assets.checks.tables import CheckRule
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import EVALUATION
from mlops_assets.ml.metric_names import greater_is_better
from mlops_assets.resources.model_registry import RegisteredModel
from mlops_assets.solution import Solution

if TYPE_CHECKING:
    from mlops_assets.ml.evaluation import Evaluation


def rules_of(solution: Solution) -> list[CheckRule]:
    """The gates that a solution's YAML asks for."""
    chosen = [rules.BASELINE, rules.AGAINST_CHAMPION]
    if solution.gates.floor:
        chosen.append(rules.FLOOR)
    if solution.gates.maximum_calibration_error is not None:
        chosen.append(rules.CALIBRATION)
    return chosen


def check_evaluation(
    inputs: SolutionInputs, result: "Evaluation", *, champion: RegisteredModel | None, champion_result: "Evaluation | None"
) -> list[dg.AssetCheckResult]:
    """The outcome of every gate. `champion_result` is the champion on the same rows, None when there is nothing to compare."""
    checks = [_baseline(inputs, result), _against_champion(inputs, result, champion, champion_result)]
    if inputs.solution.gates.floor:
        checks.append(_floor(inputs, result))
    if inputs.solution.gates.maximum_calibration_error is not None:
        checks.append(_calibration(inputs, result, inputs.solution.gates.maximum_calibration_error))
    return checks


def _floor(inputs: SolutionInputs, result: "Evaluation") -> dg.AssetCheckResult:
    below = {}
    for name, bound in inputs.solution.gates.floor.items():
        value = result.metrics[name]
        if value is None or (value < bound if greater_is_better(name) else value > bound):
            below[name] = {"value": value, "bound": bound}
    return rules.FLOOR.result(
        inputs.key(EVALUATION),
        passed=not below,
        metadata={"floor": dg.MetadataValue.json(dict(inputs.solution.gates.floor)), "missed": dg.MetadataValue.json(below)},
        description=f"missed: {', '.join(below)}" if below else None,
    )


def _baseline(inputs: SolutionInputs, result: "Evaluation") -> dg.AssetCheckResult:
    metric = inputs.solution.training.metric
    value, naive = result.metrics[metric], result.baseline[metric]
    better = value is not None and naive is not None and (value > naive if greater_is_better(metric) else value < naive)
    return rules.BASELINE.result(
        inputs.key(EVALUATION),
        passed=better,
        metadata={"metric": metric, "model": _number(value), "naive_baseline": _number(naive)},
        description=None if better else f"{metric} is not better than a constant prediction's",
    )


def _calibration(inputs: SolutionInputs, result: "Evaluation", limit: float) -> dg.AssetCheckResult:
    error = result.metrics.get("expected_calibration_error")
    return rules.CALIBRATION.result(
        inputs.key(EVALUATION),
        passed=error is not None and error <= limit,
        metadata={"expected_calibration_error": _number(error), "limit": limit},
        description="only binary classification has a calibration error" if error is None else None,
    )


def _against_champion(
    inputs: SolutionInputs, result: "Evaluation", champion: RegisteredModel | None, champion_result: "Evaluation | None"
) -> dg.AssetCheckResult:
    if champion_result is None:
        reason = (
            "there is no champion to compare with"
            if champion is None
            else "the champion is the candidate, or reads other features"
        )
        return rules.AGAINST_CHAMPION.result(
            inputs.key(EVALUATION), passed=True, metadata={"compared": False}, description=reason
        )
    worse, compared = [], {}
    for name, tolerance in inputs.solution.gates.against_champion.items():
        ours, theirs = result.metrics[name], champion_result.metrics[name]
        compared[name] = {"candidate": ours, "champion": theirs, "tolerance": tolerance}
        if ours is None or theirs is None:
            worse.append(name)
            continue
        loss = theirs - ours if greater_is_better(name) else ours - theirs
        if loss > tolerance:
            worse.append(name)
    return rules.AGAINST_CHAMPION.result(
        inputs.key(EVALUATION),
        passed=not worse,
        metadata={"champion": champion.version if champion else 0, "compared": dg.MetadataValue.json(compared)},
        description=f"worse than the champion: {', '.join(worse)}" if worse else None,
    )


def _number(value: float | None) -> dg.MetadataValue:
    return dg.MetadataValue.null() if value is None else dg.MetadataValue.float(value)
