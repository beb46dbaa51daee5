"""The YAML schema of the section `deployment`: who decides that an accepted version predicts."""

from typing import Literal

from mlops_assets.schema.yaml_model import YamlModel

Approval = Literal["none", "required", "four_eyes"]


class Deployment(YamlModel):
    """Who decides that a version that passed its gates predicts."""

    approval: Approval = "none"
    """`none`: the gates. `required`: a person, too, before it predicts for the first time. `four_eyes`: a person who did not ask for it.
    For one environment alone: `{{ env('APPROVAL', 'none') }}`, and `APPROVAL=four_eyes` in `deployments/<name>.env`."""

    @property
    def needs_approval(self) -> bool:
        """Whether a version waits for a person before it predicts for the first time."""
        return self.approval != "none"
