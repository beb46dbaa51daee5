"""Gates of a team: what is refused when the YAML is read, and what becomes of a failed one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clinic import solution_inputs

from mlops_assets.core.check_rules import CheckRule, Evidence
from mlops_assets.core.keys import EVALUATION
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Solution
from mlops_assets.training.gate import GATES, check_gates, gate_rules, rejection_reason

INPUTS = solution_inputs("daily")
EVIDENCE = Evidence(measured=("value",), bound=("limit",), no_examples="It is one number.")
_MODULE = """
from mlops_assets.training.gate import GateOutcome, gate

@gate("It is cheap.")
def cheap(solution, candidate_result, *, limit, currency="EUR"):
    return GateOutcome(True, "cheap", {})

@gate("It is called like ours.")
def baseline(solution, candidate_result):
    return GateOutcome(True, "x", {})
"""


@pytest.fixture(autouse=True)
def team(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "gates_of_a_team.py").write_text(_MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        yield
    sys.modules.pop("gates_of_a_team", None)


def solution(**own: dict[str, Any]) -> Solution:
    gates = INPUTS.solution.gates
    names = {f"gates_of_a_team:{name}": parameters for name, parameters in own.items()}
    return INPUTS.solution.model_copy(update={"gates": gates.model_copy(update={"own": names})})


def test_a_named_gate_belongs_to_the_solution_after_ours() -> None:
    declared = solution(cheap={"limit": 3})
    check_gates(declared)
    ours = [rule.name for rule in gate_rules(declared, own=False)]
    assert ours
    assert all(GATES.is_own(name) for name in ours)
    assert [rule.name for rule in gate_rules(declared)] == [*ours, "cheap"]
    assert gate_rules(declared)[-1].description == "It is cheap."
    assert not any(rule.blocking for rule in gate_rules(declared))


@pytest.mark.parametrize(
    ("own", "path", "words"),
    [
        ({"cheap": {}}, ("gates", "own", "gates_of_a_team:cheap"), "needs the parameter limit"),
        (
            {"cheap": {"limit": 3, "curency": "USD"}},
            ("gates", "own", "gates_of_a_team:cheap", "curency"),
            "did you mean currency?",
        ),
        (
            {"cheap": {"limit": 3, "solution": 1}},
            ("gates", "own", "gates_of_a_team:cheap", "solution"),
            "has no parameter 'solution'",
        ),
        ({"baseline": {}}, ("gates", "own", "gates_of_a_team:baseline"), "there is another gate that is called baseline"),
        ({"cheep": {}}, ("gates", "own", "gates_of_a_team:cheep"), "did you mean cheap?"),
    ],
)
def test_a_gate_that_cannot_be_asked_is_refused_at_its_place(own: dict[str, Any], path: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_gates(solution(**own))
    assert error.value.path == path
    assert words in error.value.message


def test_a_rejection_names_every_gate_that_failed_and_nothing_else() -> None:
    key = INPUTS.key(EVALUATION)
    results = [
        CheckRule(name, "", blocking=False, evidence=EVIDENCE).result(
            key, passed=passed, metadata={"value": 3, "limit": 2}, description=f"{name} is 3"
        )
        for name, passed in (("a", True), ("b", False), ("c", False))
    ]
    assert rejection_reason(results) == "b: b is 3; c: c is 3"
    assert rejection_reason(results[:1]) is None
    assert rejection_reason([]) is None
