"""The sensors that watch all solutions of a project: one of each kind, whose ticks look at every solution.

What a solution has by itself is the sensor `<solution>_retraining`, because that is switched on and off by solution.
"""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.components.ml_solution import MLSolution
from mlops_assets.core.origin import COMPONENT
from mlops_assets.deployment.challenger_sensor import build_challenger_sensor
from mlops_assets.deployment.champion_sensor import build_champion_sensor
from mlops_assets.deployment.served_version import build_served_version_sensor
from mlops_assets.deployment.served_version_check import served_solution
from mlops_assets.monitoring.late_inputs_sensor import build_late_inputs_sensor
from mlops_assets.predictions.prediction_log_sensor import LoggedSolution, build_prediction_log_sensor
from mlops_assets.stages.inputs import SolutionInputs


def build_solution_sensors(definitions: dg.Definitions) -> list[dg.SensorDefinition]:
    """The sensors of the solutions in `definitions`, which Dagster loaded from components; none when there is no solution."""
    solutions = {inputs.name: inputs for inputs in _solutions(definitions)}
    if not solutions:
        return []
    targets = [
        target for inputs in solutions.values() for target in (inputs.deployment_target, *inputs.segment_deployment_targets)
    ]
    logged = {
        name: LoggedSolution(inputs.partitions, inputs.solution.serving.log_interval_seconds)
        for name, inputs in solutions.items()
    }
    return [
        build_champion_sensor(targets, [job for job in definitions.jobs or [] if isinstance(job, UnresolvedAssetJobDefinition)]),
        build_challenger_sensor({name: inputs.solution.serving for name, inputs in solutions.items()}),
        build_served_version_sensor({name: served_solution(inputs) for name, inputs in solutions.items()}),
        build_prediction_log_sensor(logged),
        build_late_inputs_sensor(solutions),
    ]


def _solutions(definitions: dg.Definitions) -> Iterator[SolutionInputs]:
    for asset in definitions.assets or []:
        if isinstance(asset, dg.AssetsDefinition) and asset.keys:
            component = getattr(next(iter(asset.specs)).metadata.get(COMPONENT), "instance", None)
            if isinstance(component, MLSolution) and component.inputs is not None:
                yield component.inputs
