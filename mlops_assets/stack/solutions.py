"""What `mlops status` says of the solutions: champion, last partition, failing checks."""

from collections.abc import Mapping

import requests

from mlops_assets.settings import Settings
from mlops_assets.stack.dagster_client import AssetState, ancestors

# Spelled as in `keys.py`, which imports Dagster: too slow for a status command.
_SOLUTION_TAG, _STAGE_TAG = "mlops/solution", "mlops/stage"
_CHAMPION = "champion"
_CONFIGURATION_ERROR = "configuration_error/"


def solution_states(settings: Settings, assets: Mapping[str, AssetState]) -> dict[str, dict[str, object]]:
    """One entry a solution, by name, with values that JSON can hold. `failing_checks` are those of everything the solution needs."""
    solutions: dict[str, dict[str, AssetState]] = {}
    for asset in assets.values():
        if _SOLUTION_TAG in asset.tags:
            solutions.setdefault(asset.tags[_SOLUTION_TAG], {})[asset.tags[_STAGE_TAG]] = asset
    return {
        name: {
            "champion": champion_version(settings, name),
            "last_partition": max((end for _, end in stages["predictions"].ranges), default=None),
            "failing_checks": [
                f"{key}: {check}"
                for key in sorted(ancestors(assets, [stage.key for stage in stages.values()]))
                for check in assets[key].failing_checks
            ],
            "warnings": [f"{stage.key}: {check}" for _, stage in sorted(stages.items()) for check in stage.warning_checks],
        }
        for name, stages in sorted(solutions.items())
    }


def configuration_errors(assets: Mapping[str, AssetState]) -> list[str]:
    """What is wrong in the folders of `defs/` that were not loaded: `file:line: message`, a line each."""
    return [
        line.removeprefix("- ").strip("`")
        for asset in assets.values()
        if asset.key.startswith(_CONFIGURATION_ERROR)
        for line in asset.description.splitlines()
        if line.startswith("- ")
    ]


def champion_version(settings: Settings, solution: str) -> int | None:
    """The version that MLflow calls the solution's champion, None when there is none or MLflow does not answer."""
    try:
        response = requests.get(
            f"{settings.mlflow_url}/api/2.0/mlflow/registered-models/alias",
            params={"name": solution, "alias": _CHAMPION},
            timeout=10,
        )
    except requests.ConnectionError:
        return None
    return int(response.json()["model_version"]["version"]) if response.ok else None
