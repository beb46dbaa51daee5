"""Stages: a few assets for a range of partitions in one run of the local Dagster, unless all of it is there already."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlops_assets.clients.asset_state import AssetState, ancestors
from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.operations.runs import follow_run


@dataclass(frozen=True)
class StageRun:
    """One run: these assets for the partitions from `first` to `last`, with the run configuration of those that get one.

    `again`: also when all of it is there already.
    """

    name: str
    assets: tuple[str, ...]
    first: str
    last: str
    configuration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    again: bool = False


@dataclass
class StageRunResult:
    """What became of a stage: seconds from launch to end (None = everything was there already), per step, and the run."""

    stage: StageRun
    seconds: float | None = None
    steps: dict[str, float] = field(default_factory=dict)
    run_url: str | None = None


def run_stage(client: DagsterClient, stage: StageRun, report: Callable[[RunState], None]) -> StageRunResult:
    """Materialize a stage in one run unless all of it is there; `report` hears how the run stands. Raises StackError on failure."""
    assets = client.assets()
    needed = [assets[key] for key in stage.assets]
    result = StageRunResult(stage)
    if not stage.again and all(asset.covers(stage.first, stage.last) for asset in needed):
        return result
    began = time.monotonic()
    run_id = client.launch(needed, stage.first, stage.last, stage.configuration, purpose=stage.name)
    result.run_url = client.run_url(run_id)
    state = follow_run(client, run_id, stage.name, report)
    result.seconds = time.monotonic() - began
    result.steps = state.seconds
    return result


def data_assets(assets: Mapping[str, AssetState], key: str) -> set[str]:
    """All assets that `key` needs, those made by the same ops (one dbt command builds all features of a source) with their needs,
    and what describes them alone, such as the statistics of the features.
    """
    found = ancestors(assets, assets[key].dependencies)
    operations = {operation for each in found for operation in assets[each].operations}
    siblings = [each for each, asset in assets.items() if operations.intersection(asset.operations)]
    found = found.union(siblings, ancestors(assets, siblings))
    describing = [
        each
        for each, asset in assets.items()
        if asset.executable and asset.dependencies and not asset.in_solution and found.issuperset(asset.dependencies)
    ]
    return found.union(describing)
