"""What `mlops status` says of the solutions: champion, last partition, failing checks."""

import requests

from mlops_assets.settings import Settings
from mlops_assets.stack.dagster_client import AssetState, DagsterClient
from mlops_assets.stack.errors import StackError

# Spelled as in `keys.py`, which imports Dagster: too slow for a status command.
_SOLUTION_TAG, _STAGE_TAG = "mlops/solution", "mlops/stage"
_CHAMPION = "champion"


def solution_states(settings: Settings) -> dict[str, dict[str, object]]:
    """One entry a solution, by name, with values that JSON can hold; empty while Dagster is not running."""
    try:
        assets = DagsterClient(settings.dagster_url).assets()
    except StackError:
        return {}
    solutions: dict[str, dict[str, AssetState]] = {}
    for asset in assets.values():
        if _SOLUTION_TAG in asset.tags:
            solutions.setdefault(asset.tags[_SOLUTION_TAG], {})[asset.tags[_STAGE_TAG]] = asset
    return {
        name: {
            "champion": champion_version(settings, name),
            "last_partition": max((end for _, end in stages["predictions"].ranges), default=None),
            "failing_checks": _checks(stages, warnings=False),
            "warnings": _checks(stages, warnings=True),
        }
        for name, stages in sorted(solutions.items())
    }


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


def _checks(stages: dict[str, AssetState], *, warnings: bool) -> list[str]:
    return sorted(
        f"{stage}: {check}"
        for stage, asset in stages.items()
        for check in (asset.warning_checks if warnings else asset.failing_checks)
    )
