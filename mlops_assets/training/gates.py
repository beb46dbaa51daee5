"""The gates of the platform on a candidate's hold-out: each public object is one, and names its check. A new gate is a function here.

Each says in one sentence what it saw, passed or not, and has the evidence as metadata.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.schema.metric_names import greater_is_better
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.evidence import (
    evidence_table,
    format_interval,
    format_value,
    format_with_interval,
    interval_bounds,
    plottable_number,
)
from mlops_assets.training.gate import CandidateResult, GateOutcome, gate
from mlops_assets.training.group_gate import group_differences as group_differences

if TYPE_CHECKING:
    from mlops_assets.ml.evaluation import Evaluation, SliceResult

_NAMED_SLICES = 5
_REFIT_TOLERANCE = 0.1
"""Share of the lead over a constant prediction that the refit may lose on rows that it has seen: more is a fault, not noise."""


@gate(
    "The blocking checks of the training dataset passed, in whichever run, and it still holds what the model was trained on.",
    measured=("passed", "failed", "missing", "unchanged"),
    bound=("maximum_failed",),
)
def dataset_checks(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """The blocking checks of the training dataset passed, in whichever run, and it still holds what the model was trained on."""
    state = candidate_result.dataset
    faults = []
    if state.failed:
        faults.append(f"failed: {', '.join(state.failed)}")
    if state.missing:
        faults.append(f"never ran: {', '.join(state.missing)}")
    if not state.unchanged:
        faults.append("the dataset was written again with other rows after the model was trained: materialize the model anew")
    warned = f"; warnings: {', '.join(state.warned)}" if state.warned else ""
    evidence = {
        "passed": dg.MetadataValue.json(list(state.passed)),
        "failed": dg.MetadataValue.json(list(state.failed)),
        "missing": dg.MetadataValue.json(list(state.missing)),
        "maximum_failed": 0,
        "warned": dg.MetadataValue.json(list(state.warned)),
        "unchanged": state.unchanged,
        "run": dg.MetadataValue.null() if state.run_id is None else dg.MetadataValue.dagster_run(state.run_id),
    }
    return GateOutcome(not faults, ("; ".join(faults) or f"{len(state.passed)} checks of the dataset passed") + warned, evidence)


@gate(
    "The selection metric is better than a constant prediction's, beyond what chance explains.",
    measured=("model", "difference", "difference_interval"),
    bound=("naive_baseline",),
)
def baseline(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """The selection metric is better than a constant prediction's, beyond what chance explains."""
    compared = candidate_result.against_baseline
    # A constant prediction has no precision, for instance: it never decides for the positive class.
    passed = compared.ours is not None and (compared.theirs is None or compared.is_better)
    model = format_with_interval(candidate_result.result, compared.metric)
    sentence = f"{compared.metric} {model}, constant prediction {format_value(compared.theirs)}"
    if not passed:
        sentence += ": not better beyond chance"
    evidence = {
        "metric": compared.metric,
        "model": plottable_number(compared.ours),
        "naive_baseline": plottable_number(compared.theirs),
        "difference": plottable_number(compared.value),
        "difference_interval": interval_bounds(compared.interval),
        "rows": candidate_result.result.rows,
    }
    return GateOutcome(passed, sentence, evidence)


@gate(
    "Every gated metric reaches its floor on the hold-out.",
    asked=lambda solution: bool(solution.gates.floor),
    measured=("floor",),
    bound=("floor",),
)
def floor(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """Every gated metric reaches its floor on the hold-out."""
    result = candidate_result.result
    missed = [name for name, bound in solution.gates.floor.items() if _misses(name, result.metrics[name], bound)]
    parts = [
        f"{name} {format_with_interval(result, name)}, floor {format_value(bound)}{' missed' if name in missed else ''}"
        for name, bound in solution.gates.floor.items()
    ]
    evidence = {"floor": _metric_table(result, solution.gates.floor, missed), "rows": result.rows}
    return GateOutcome(not missed, "; ".join(parts), evidence)


@gate(
    "No slice of the hold-out is below its floor, beyond what chance explains.",
    asked=lambda solution: bool(solution.gates.worst_slice),
    measured=("worst", "slices_evaluated"),
    bound=("floors",),
)
def worst_slice(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """No slice of the hold-out is below its floor, beyond what chance explains."""
    floors = solution.gates.worst_slice
    evaluated = [
        (name, slice_result)
        for name in floors
        for slice_result in candidate_result.result.slices
        if slice_result.metrics[name] is not None
    ]
    evaluated.sort(key=lambda pair: (pair[1].metrics[pair[0]] or 0.0) * (1 if greater_is_better(pair[0]) else -1))
    below = [(name, slice_result) for name, slice_result in evaluated if _misses_beyond_chance(name, slice_result, floors[name])]
    named = below[:_NAMED_SLICES] or evaluated[:1]
    sentence = "; ".join(
        f"{name} {format_value(slice_result.metrics[name])}{format_interval(slice_result.intervals.get(name))} "
        f"where {slice_result.column} = {slice_result.value} ({slice_result.rows:,} rows), floor {format_value(floors[name])}"
        for name, slice_result in named
    )
    if len(below) > _NAMED_SLICES:
        sentence += f"; and {len(below) - _NAMED_SLICES} more"
    records = [
        dg.TableRecord(
            {
                "slice": f"{slice_result.column} = {slice_result.value}",
                "metric": name,
                "value": format_value(slice_result.metrics[name]),
                "interval": format_interval(slice_result.intervals.get(name)).strip(),
                "floor": format_value(floors[name]),
                "rows": slice_result.rows,
                "passed": (name, slice_result) not in below,
            }
        )
        for name, slice_result in evaluated[:20]
    ]
    evidence = {
        "worst": evidence_table(records, {"rows": "int", "passed": "bool"}),
        "slices_evaluated": len(evaluated),
        "floors": dg.MetadataValue.json(dict(floors)),
        "too_few_rows": dg.MetadataValue.json(dict(candidate_result.result.dropped_slices)),
    }
    return GateOutcome(not below, sentence or "no slice has enough rows to be evaluated", evidence)


@gate(
    "The expected calibration error is below the limit.",
    asked=lambda solution: solution.gates.maximum_calibration_error is not None,
    measured=("expected_calibration_error", "interval"),
    bound=("limit",),
)
def calibration(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """The expected calibration error is below the limit."""
    limit = solution.gates.maximum_calibration_error or 0.0
    name = "expected_calibration_error"
    error = candidate_result.result.metrics[name]
    evidence = {
        name: plottable_number(error),
        "interval": interval_bounds(candidate_result.result.intervals.get(name)),
        "limit": limit,
        "rows": candidate_result.result.rows,
    }
    sentence = f"expected calibration error {format_with_interval(candidate_result.result, name)}, limit {format_value(limit)}"
    return GateOutcome(error is not None and error <= limit, sentence, evidence)


@gate(
    "Not worse than the champion on the same rows by more than the tolerance, beyond what chance explains.",
    measured=("compared", "differences"),
    bound=("tolerances",),
)
def against_champion(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """Not worse than the champion on the same rows by more than the tolerance, beyond what chance explains."""
    stated = solution.gates.against_champion
    if candidate_result.champion is None or not candidate_result.against_champion:
        evidence = {"compared": False, "differences": dg.MetadataValue.null(), "tolerances": dg.MetadataValue.json(stated)}
        return GateOutcome(True, candidate_result.not_compared, evidence)
    metric = solution.training.metric
    # A recalibration leaves the ranking as it is: what it is made for is the loss.
    judged = [metric, "log_loss"] if candidate_result.is_recalibration and solution.problem != "regression" else [metric]
    tolerances = stated or {name: candidate_result.against_champion[name].negligible_loss for name in judged}
    worse = [name for name, tolerance in tolerances.items() if candidate_result.against_champion[name].is_worse(tolerance)]
    parts, records = [], []
    for name, tolerance in tolerances.items():
        difference = candidate_result.against_champion[name]
        parts.append(
            f"{name} {format_value(difference.ours)}, champion {format_value(difference.theirs)}, difference {format_value(difference.value)}"
            f"{format_interval(difference.interval)}{' is worse' if name in worse else ''}"
        )
        records.append(
            dg.TableRecord(
                {
                    "metric": name,
                    "candidate": format_value(difference.ours),
                    "champion": format_value(difference.theirs),
                    "difference": format_value(difference.value),
                    "interval": format_interval(difference.interval).strip(),
                    "tolerance": format_value(tolerance),
                    "passed": name not in worse,
                }
            )
        )
    gains = {name for name, difference in candidate_result.against_champion.items() if difference.is_better}
    lacks_gain = candidate_result.must_gain and not gains & {metric, "log_loss", "mean_absolute_error"}
    evidence = {
        "champion": candidate_result.champion.version,
        "champion_is_gated_fit": candidate_result.champion_is_gated_fit,
        "compared": True,
        "tolerances": dg.MetadataValue.json(dict(tolerances)),
        "tolerance_is_stated": bool(stated),
        "rows": candidate_result.result.rows,
        "drawn_for_intervals": _drawn(candidate_result.result),
        "differences": evidence_table(records, {"passed": "bool"}),
    }
    negligible = ", ".join(map(format_value, tolerances.values()))
    default = "" if stated else f"; no tolerance is stated: {negligible}, a fiftieth of the way to perfect"
    fit = " as it was before its refit" if candidate_result.champion_is_gated_fit else ""
    against = f"version {candidate_result.champion.version}{fit} on the same {_drawn(candidate_result.result)}{default}"
    without_gain = "; not better beyond chance, and nothing shows that newer history helps" if lacks_gain else ""
    return GateOutcome(not worse and not lacks_gain, f"{'; '.join(parts)}{without_gain} ({against})", evidence)


@gate(
    "The model that serves, fitted again with the hold-out, predicts the hold-out no worse than the one that the gates evaluated.",
    measured=("refitted", "difference", "difference_interval"),
    bound=("tolerance",),
)
def refit(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """The model that serves, fitted again with the hold-out, predicts the hold-out no worse than the one that the gates evaluated."""
    compared, lead = candidate_result.refit, candidate_result.against_baseline.value
    tolerance = _REFIT_TOLERANCE * abs(lead or 0.0)
    if compared is None:
        nothing = dict.fromkeys(("difference", "difference_interval"), dg.MetadataValue.null())
        sentence = "the model that serves is the one that the gates evaluated"
        return GateOutcome(True, sentence, {"refitted": False, "tolerance": tolerance, **nothing})
    passed = not compared.is_worse(tolerance)
    sentence = (
        f"{compared.metric} {format_value(compared.ours)} on the hold-out that it has seen, {format_value(compared.theirs)} before, "
        f"difference {format_value(compared.value)}{format_interval(compared.interval)}{'' if passed else ' is worse'}"
    )
    evidence = {
        "refitted": True,
        "metric": compared.metric,
        "difference": plottable_number(compared.value),
        "difference_interval": interval_bounds(compared.interval),
        "tolerance": tolerance,
    }
    return GateOutcome(passed, sentence, evidence)


@gate(
    "99 of 100 single rows are predicted by the bundle within the limit, features at hand.",
    measured=("p50_milliseconds", "p99_milliseconds", "rows"),
    bound=("limit_milliseconds",),
)
def latency(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """99 of 100 single rows are predicted by the bundle within the limit, features at hand."""
    latency, limit = candidate_result.latency, solution.gates.maximum_latency_milliseconds
    sentence = f"p50 {latency.p50:.3g} ms, p99 {latency.p99:.3g} ms, limit {limit:g} ms"
    evidence = {
        "p50_milliseconds": latency.p50,
        "p99_milliseconds": latency.p99,
        "limit_milliseconds": limit,
        "rows": latency.rows,
    }
    return GateOutcome(latency.p99 <= limit, sentence, evidence)


def _drawn(result: "Evaluation") -> str:
    return f"{result.rows:,} rows" + ("" if result.blocks is None else f" of {result.blocks:,} days")


def _misses(metric: str, value: float | None, bound: float) -> bool:
    return value is None or (value < bound if greater_is_better(metric) else value > bound)


def _misses_beyond_chance(metric: str, part: "SliceResult", bound: float) -> bool:
    """Whether the slice's value and the whole interval around it are on the wrong side of `bound`: small slices scatter."""
    interval = part.intervals.get(metric)
    best = None if interval is None else interval.high if greater_is_better(metric) else interval.low
    return _misses(metric, part.metrics[metric], bound) and (best is None or _misses(metric, best, bound))


def _metric_table(result: "Evaluation", bounds: Mapping[str, float], missed: Sequence[str]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                "metric": name,
                "value": format_value(result.metrics[name]),
                "interval": format_interval(result.intervals.get(name)).strip(),
                "floor": format_value(bound),
                "passed": name not in missed,
            }
        )
        for name, bound in bounds.items()
    ]
    return evidence_table(records, {"passed": "bool"})
