"""The gate on the differences between the groups of a solution."""

import dagster as dg

from mlops_assets.schema.solution import Solution
from mlops_assets.stages.evidence import evidence_table, format_interval, format_value
from mlops_assets.training.gate import CandidateResult, GateOutcome, gate

_NAMED_GROUPS = 5


@gate(
    "No group of the hold-out is worse than the others by more than the limit, beyond what chance explains.",
    asked=lambda solution: bool(solution.gates.groups),
    measured=("differences", "groups_compared"),
    bound=("limits",),
)
def group_differences(solution: Solution, candidate_result: CandidateResult) -> GateOutcome:
    """No group of the hold-out is worse than the others by more than the limit, beyond what chance explains."""
    limits = solution.gates.groups
    compared = [
        difference for difference in candidate_result.groups if difference.metric in limits and difference.loss is not None
    ]
    compared.sort(key=lambda difference: (difference.loss or 0.0) - limits[difference.metric], reverse=True)
    beyond = [
        difference
        for difference in compared
        if difference.least_loss is not None and difference.least_loss > limits[difference.metric]
    ]
    sentence = "; ".join(
        f"{difference.column} = {difference.group}: {difference.words}, limit {format_value(limits[difference.metric])}"
        for difference in beyond[:_NAMED_GROUPS] or compared[:1]
    )
    records = [
        dg.TableRecord(
            {
                "group": f"{difference.column} = {difference.group}",
                "metric": difference.metric,
                "value": format_value(difference.value),
                "others": format_value(difference.other_value),
                "difference": f"{format_value(difference.difference)}{format_interval(difference.difference_interval)}",
                "ratio": f"{format_value(difference.ratio)}{format_interval(difference.ratio_interval)}",
                "rows": difference.rows,
                "passed": difference not in beyond,
            }
        )
        for difference in compared[:20]
    ]
    evidence = {
        "differences": evidence_table(records, {"rows": "int", "passed": "bool"}),
        "groups_compared": len({(difference.column, difference.group) for difference in compared}),
        "limits": dg.MetadataValue.json(dict(limits)),
    }
    return GateOutcome(not beyond, sentence or "no group has enough rows to be compared", evidence)
