"""Gates of a review: what a change breaks, by kind. A gate that fails makes `mlops diff` end with 2."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

DEFINITIONS, CONTRACTS, LIVE_MODELS, CHECKS = "definitions", "contracts", "live_models", "checks"
PERFORMANCE = "performance"

MEANINGS = {
    DEFINITIONS: "Every folder of `defs/` that loaded before still loads.",
    CONTRACTS: "No version of a feature view loses, renames or retypes a column.",
    LIVE_MODELS: "Every version in production still finds all that it reads.",
    CHECKS: "No asset that stays loses a blocking check.",
    PERFORMANCE: "No changed model is worse than that of before by more than `gates.against_champion` lets pass.",
}
"""Name -> what holds when it passes."""


@dataclass(frozen=True)
class Gate:
    """The outcome of one gate. `problems` are what breaks; with an `obstacle` it is not known whether anything does."""

    name: str
    problems: tuple[str, ...] = ()
    obstacle: str | None = None
    is_allowed: bool = False

    @property
    def outcome(self) -> str:
        """`passed`, `failed`, `allowed` (it would have failed) or `unknown`."""
        if self.problems:
            return "allowed" if self.is_allowed else "failed"
        return "unknown" if self.obstacle else "passed"


def judge(name: str, problems: Sequence[str], *, allowed: Collection[str], obstacle: str | None = None) -> Gate:
    """Return the outcome of the gate `name`, which does not fail when it is among those that a person `allowed` to."""
    return Gate(name, tuple(problems), obstacle, name in allowed)
