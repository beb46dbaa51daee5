"""The declaration of a stage of a solution. All of them are in `mlops_assets/components/stages.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import dagster as dg

from mlops_assets.core.keys import SEGMENT_STAGES
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

Job = Literal["training", "scoring", "monitoring"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a solution: the last part of its asset key, and all that the platform knows of it.

    `build` makes its asset, and `also` what its step writes beside it. Its partitions are those of the other stages of its `job`; None:
    no job has it. `condition` makes it follow its inputs, `freshness` tells how old it may become. Its failed checks are notified as
    `check_event`, those of other stages as `check_failed`, when they block.
    """

    name: str
    build: Callable[[SolutionInputs], dg.AssetsDefinition]
    job: Job | None
    condition: dg.AutomationCondition | Callable[[SolutionInputs], dg.AutomationCondition] | None
    freshness: Callable[[Solution], dg.FreshnessPolicy | None]
    check_event: str | None
    also: tuple[str, ...] = ()

    def condition_of(self, inputs: SolutionInputs) -> dg.AutomationCondition | None:
        """The condition in the solution of `inputs`."""
        if self.condition is None or isinstance(self.condition, dg.AutomationCondition):
            return self.condition
        return self.condition(inputs)

    @property
    def has_segments(self) -> bool:
        """Whether the models of segments have this stage too."""
        return self.name in SEGMENT_STAGES
