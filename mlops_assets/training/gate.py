"""The protocol of a gate, the gates of a solution, and their results. The gates of the platform are in `gates.py`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import dagster as dg

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.core.check_rules import CheckRule, Evidence
from mlops_assets.core.keys import EVALUATION
from mlops_assets.schema.configuration_errors import ErrorCollector
from mlops_assets.schema.parameters import check_parameters
from mlops_assets.schema.registry import Registry
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.recorded_checks import DatasetState

if TYPE_CHECKING:
    from mlops_assets.ml.comparison import MetricDifference
    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.ml.group_differences import GroupDifference
    from mlops_assets.serving.latency import Latency

_SENTENCE, _PARAMETERS = "sentence", "parameters"
"""Metadata that every result of a gate of the team has."""


@dataclass(frozen=True)
class CandidateResult:
    """All that the gates look at.

    `against_baseline` is the selection metric beside a constant prediction's. `against_champion` has every metric beside the
    champion's on the same rows; it is empty when there is nothing to compare, and `not_compared` says why. `champion_is_gated_fit` tells that
    the champion was evaluated as it was before its refit. `refit` is the selection metric of the model that will serve, fitted with the
    hold-out too, beside that of the model that is gated; None where that one serves. `groups` are the differences of the solution's groups.
    With `must_gain` the decision that asked for the training saw nothing that a training mends: what is only not worse than the champion is
    refused. `is_recalibration` tells that no model was fitted.
    """

    result: "Evaluation"
    against_baseline: "MetricDifference"
    champion: RegisteredModel | None
    against_champion: "Mapping[str, MetricDifference]"
    not_compared: str
    latency: "Latency"
    dataset: DatasetState
    champion_is_gated_fit: bool = False
    refit: "MetricDifference | None" = None
    groups: "Sequence[GroupDifference]" = ()
    must_gain: bool = False
    is_recalibration: bool = False


@dataclass(frozen=True)
class GateOutcome:
    """Whether a gate is passed, the sentence that says what it saw, and the evidence as metadata of the check."""

    passed: bool
    sentence: str
    evidence: Mapping[str, Any]


@runtime_checkable
class Gate(Protocol):
    """A condition of a deployment. `description` is that of its check; keyword arguments are its parameters in YAML."""

    description: str

    def is_asked(self, solution: Solution) -> bool:
        """Whether a built-in gate belongs to `solution`; one of a team does by being named."""
        ...

    def __call__(self, solution: Solution, candidate_result: CandidateResult, **parameters: Any) -> GateOutcome:
        """The outcome for one candidate."""
        ...


@dataclass(frozen=True)
class FunctionGate:
    """A gate that is a function."""

    function: Callable[..., GateOutcome]
    description: str
    asked: Callable[[Solution], bool]
    measured: tuple[str, ...]
    bound: tuple[str, ...]

    def is_asked(self, solution: Solution) -> bool:
        """Whether a built-in gate belongs to `solution`."""
        return self.asked(solution)

    def __call__(self, solution: Solution, candidate_result: CandidateResult, **parameters: Any) -> GateOutcome:
        """The outcome for one candidate."""
        return self.function(solution, candidate_result, **parameters)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function, eval_str=True)


def gate(
    description: str,
    *,
    asked: Callable[[Solution], bool] = lambda solution: True,
    measured: tuple[str, ...] = (),
    bound: tuple[str, ...] = (),
) -> Callable[[Callable[..., GateOutcome]], FunctionGate]:
    """Declare the function below as a gate; a built-in one belongs to the solutions for which `asked` is true.

    `measured` and `bound` name the evidence of its outcomes that is what was measured, and the bound; without them these are the sentence
    and the parameters in YAML.
    """
    return lambda function: FunctionGate(function, description, asked, measured, bound)


GATES = Registry("gate", group="mlops_assets.gates", builtin="mlops_assets.training.gates", protocol=Gate)  # type: ignore[type-abstract]


def check_gates(solution: Solution) -> None:
    """Raise ConfigurationError for a gate of the team that does not exist, or whose parameters are others."""
    names, errors = [rule.name for rule in gate_rules(solution, own=False)], ErrorCollector()
    for name, parameters in solution.gates.own.items():
        path = ("gates", "own", name)
        with errors.collect():
            check_parameters(GATES.check(name, path), parameters, path, name)
        if _check_name(name) in names:
            errors.add(path, f"there is another gate that is called {_check_name(name)}")
        names.append(_check_name(name))
    errors.raise_errors()


def gate_rules(solution: Solution, *, own: bool = True) -> list[CheckRule]:
    """The checks of the gates that a solution's YAML asks for, in the order of `check_evaluation`; with the team's (`own`)."""
    return [_rule(name, gate) for name, gate, _ in _asked(solution, own=own)]


def _rule(name: str, gate: Gate) -> CheckRule:
    evidence = Evidence(
        measured=getattr(gate, "measured", ()) or (_SENTENCE,),
        bound=getattr(gate, "bound", ()) or (_PARAMETERS,),
        no_examples="A gate evaluates the rows of the hold-out together.",
    )
    # A failed gate is a result: it refuses the candidate, and does not fail the run (`stages/refusal.py`).
    return CheckRule(name, gate.description, blocking=False, evidence=evidence)


def check_evaluation(inputs: SolutionInputs, candidate_result: CandidateResult) -> list[dg.AssetCheckResult]:
    """The outcome of every gate."""
    results = []
    for name, gate, parameters in _asked(inputs.solution, own=True):
        outcome = gate(inputs.solution, candidate_result, **parameters)
        metadata = {
            _SENTENCE: outcome.sentence,
            _PARAMETERS: dg.MetadataValue.json(dict(parameters)),
            **outcome.evidence,
        }
        result = _rule(name, gate).result(
            inputs.key(EVALUATION), passed=outcome.passed, metadata=metadata, description=outcome.sentence
        )
        results.append(result)
    return results


def rejection_reason(checks: Sequence[dg.AssetCheckResult]) -> str | None:
    """Return the reason why a candidate with the gates `checks` is rejected, or None when it is not."""
    failed = [f"{check.check_name}: {check.description}" for check in checks if not check.passed]
    return "; ".join(failed) or None


def _asked(solution: Solution, *, own: bool) -> list[tuple[str, Gate, Mapping[str, Any]]]:
    """The gates of a solution: the name of the check, the gate, its parameters."""
    built_in = [(name, GATES.get(name)) for name in GATES.names() if GATES.is_own(name)]
    gates: list[tuple[str, Gate, Mapping[str, Any]]] = [(name, gate, {}) for name, gate in built_in if gate.is_asked(solution)]
    if own:
        gates += [(_check_name(name), GATES.get(name), parameters) for name, parameters in solution.gates.own.items()]
    return gates


def _check_name(name: str) -> str:
    """The name of the check of a gate: without the module of an import path."""
    return name.rpartition(":")[2]
