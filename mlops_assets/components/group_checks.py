"""Checks of the groups that a solution compares: their columns, references and metrics."""

from mlops_assets.schema.configuration_errors import ErrorCollector, nearest
from mlops_assets.schema.metric_names import METRICS, check_metric
from mlops_assets.stages.inputs import SolutionInputs

_PATH = ("monitoring", "groups")


def check_groups(inputs: SolutionInputs, errors: ErrorCollector) -> None:
    """Collect what is wrong with `monitoring.groups` and with the gate that reads it."""
    solution, groups = inputs.solution, inputs.solution.monitoring.groups
    if groups is None:
        if solution.gates.groups:
            errors.add(("gates", "groups"), "there are no groups to compare; name their columns in `monitoring.groups`")
        return
    available = [*inputs.entity, *inputs.features]
    for number, column in enumerate(groups.columns):
        if column not in available:
            errors.add((*_PATH, "columns", number), f"{column!r} is no feature or entity key; {nearest(column, available)}")
    for column in groups.reference:
        if column not in groups.columns:
            errors.add((*_PATH, "reference", column), f"{column!r} is no column of groups; {nearest(column, groups.columns)}")
    places: list[tuple[tuple[str | int, ...], str]] = [
        ((*_PATH, "metrics", number), name) for number, name in enumerate(groups.metrics)
    ]
    places += [((*_PATH, "maximum_difference", name), name) for name in groups.maximum_difference]
    places += [(("gates", "groups", name), name) for name in solution.gates.groups]
    for path, name in places:
        with errors.collect():
            check_metric(name, solution.problem, path)
            if METRICS.get(name).biased_upwards:
                errors.add(path, f"fewer rows raise {name}: it cannot be compared between groups of different sizes")
            elif groups.metrics and name not in groups.metrics:
                errors.add(path, f"{name} is not compared; name it in `monitoring.groups.metrics` too")
