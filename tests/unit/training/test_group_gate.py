"""The gate on groups: a gap beyond its limit and chance refuses a candidate, a smaller one does not."""

from dataclasses import replace
from typing import Any

import pytest
from clinic import solution_inputs

from mlops_assets.ml.bootstrap import Interval
from mlops_assets.ml.group_differences import GroupDifference
from mlops_assets.schema.solution import Solution
from mlops_assets.training.gate import CandidateResult, GateOutcome
from mlops_assets.training.group_gate import group_differences

WORSE = GroupDifference(
    column="ward",
    group="north",
    reference=None,
    metric="accuracy",
    rows=400,
    other_rows=1600,
    value=0.80,
    other_value=0.90,
    difference_interval=Interval(-0.14, -0.06),
    ratio_interval=Interval(0.85, 0.94),
    error=0.02,
    chance=2.5,
)


def decide(limit: float, *differences: GroupDifference) -> GateOutcome:
    solution = solution_inputs("daily").solution
    gates: Any = solution.gates.model_copy(update={"groups": {"accuracy": limit}})
    asked: Solution = solution.model_copy(update={"gates": gates})
    assert group_differences.is_asked(asked)
    assert not group_differences.is_asked(solution)
    return group_differences(asked, replace(RESULT, groups=differences))


RESULT = CandidateResult(
    result=None,  # type: ignore[arg-type]
    against_baseline=None,  # type: ignore[arg-type]
    champion=None,
    against_champion={},
    not_compared="",
    latency=None,  # type: ignore[arg-type]
    dataset=None,  # type: ignore[arg-type]
)
"""This gate looks at the groups alone."""


@pytest.mark.parametrize(("limit", "passed"), [(0.05, False), (0.07, True), (0.2, True)])
def test_a_group_is_refused_when_its_whole_interval_is_beyond_the_limit(limit: float, passed: bool) -> None:
    # A group that is better, and a metric without a limit, are no reason.
    better = replace(WORSE, group="south", value=0.99, difference_interval=Interval(0.05, 0.12))
    outcome = decide(limit, better, WORSE, replace(WORSE, metric="recall"))
    assert outcome.passed is passed
    assert outcome.sentence == (
        "ward = north: accuracy 0.8 of 400 rows, 0.9 of the others: difference -0.1 [-0.14, -0.06], "
        f"ratio 0.889 [0.85, 0.94], limit {limit:g}"
    )
    assert outcome.evidence["groups_compared"] == 2


def test_groups_that_are_too_small_are_told() -> None:
    assert decide(0.05) == replace(decide(0.05), passed=True, sentence="no group has enough rows to be compared")
