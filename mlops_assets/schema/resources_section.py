"""The YAML schema of the section `resources`: what the pod of a stage may use, where each step has a pod of its own."""

from typing import Annotated

from pydantic import Field, model_validator

from mlops_assets.schema.yaml_model import YamlModel


class StageResources(YamlModel):
    """What the pod of a stage's step gets (`MLOPS_STEPS=pods`). What is left out is as for every run."""

    cpu: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Processors that are kept free for it; it may use more where there are."""
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi)$")] | None = None
    """The memory that is kept free for it, and its limit: `512Mi`, `16Gi`."""

    @model_validator(mode="after")
    def _states_something(self) -> "StageResources":
        if self.cpu is None and self.memory is None:
            raise ValueError("give `cpu`, `memory` or both")
        return self
