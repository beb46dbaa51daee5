"""Faults in the groups of a YAML file, each at its place."""

from dataclasses import replace
from typing import Any

import pytest
from clinic import solution_inputs

from mlops_assets.components.group_checks import check_groups
from mlops_assets.schema.configuration_errors import ErrorCollector
from mlops_assets.schema.monitoring_section import Groups
from mlops_assets.stages.inputs import SolutionInputs


def inputs(groups: dict[str, Any] | None, **gates: float) -> SolutionInputs:
    base = solution_inputs("daily")
    monitoring = base.solution.monitoring.model_copy(update={"groups": groups and Groups(**groups)})
    update = {"monitoring": monitoring, "gates": base.solution.gates.model_copy(update={"groups": gates})}
    return replace(base, solution=base.solution.model_copy(update=update))


FEATURE = inputs(None).features[0]


@pytest.mark.parametrize(
    ("groups", "gates", "message"),
    [
        (None, {"log_loss": 0.1}, "there are no groups to compare; name their columns in `monitoring.groups`"),
        ({"columns": ["nobody"]}, {}, "'nobody' is no feature or entity key"),
        ({"columns": [FEATURE], "reference": {"nobody": "a"}}, {}, "'nobody' is no column of groups"),
        ({"columns": [FEATURE], "metrics": ["loss"]}, {}, "loss"),
        ({"columns": [FEATURE], "maximum_difference": {"expected_calibration_error": 0.1}}, {}, "fewer rows raise"),
        ({"columns": [FEATURE], "metrics": ["accuracy"]}, {"log_loss": 0.1}, "log_loss is not compared; name it in"),
    ],
)
def test_a_fault_is_told(groups: dict[str, Any] | None, gates: dict[str, float], message: str) -> None:
    errors = ErrorCollector()
    check_groups(inputs(groups, **gates), errors)
    with pytest.raises(Exception, match=message.replace("(", ".")):
        errors.raise_errors()


def test_groups_of_a_feature_are_fine() -> None:
    errors = ErrorCollector()
    check_groups(inputs({"columns": [FEATURE], "reference": {FEATURE: "a"}}, log_loss=0.1), errors)
    errors.raise_errors()
