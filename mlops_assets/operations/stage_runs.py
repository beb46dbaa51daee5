"""Stages: a few assets for a range of partitions in one run of the local Dagster, unless all of it is there already."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from mlops_assets.clients.asset_state import AssetState, ancestors
from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.core.errors import StackError
from mlops_assets.operations.partition_windows import PartitionCalendar
from mlops_assets.operations.runs import follow_run


@dataclass(frozen=True)
class StageRun:
    """One run: these assets for the partitions from `first` to `last`, with the run configuration of those that get one.

    None of the assets has partitions where `first` and `last` are None. `again`: also when all of it is there already.
    """

    name: str
    assets: tuple[str, ...]
    first: str | None
    last: str | None
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
    """Materialize a stage in one run unless all of it is there; `report` hears how the run stands.

    Raises StackError when the run fails, and when its candidate is refused: what comes after the stage has no version to go on with.
    """
    assets = client.assets(stage.assets)
    needed = [assets[key] for key in stage.assets]
    result = StageRunResult(stage)
    if not stage.again and all(asset.covers(stage.first, stage.last) for asset in needed):
        return result
    began = time.monotonic()
    run_id = client.launch(needed, stage.first, stage.last, stage.configuration, purpose=stage.name)
    result.run_url = client.run_url(run_id)
    state = follow_run(client, run_id, stage.name, report)
    if any(key.endswith("/evaluation") for key in stage.assets) and (refusals := client.refusals(state.run_id)):
        reasons = "\n".join(refusals)
        raise StackError(f"The candidate was refused.\n{reasons}", remedy=f"The run with its checks: {result.run_url}")
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


def data_runs(
    calendar: PartitionCalendar,
    assets: Mapping[str, AssetState],
    keys: Iterable[str],
    *,
    first: date | None,
    last: date,
    name: str,
) -> list[StageRun]:
    """Runs that materialize the assets `keys` for the days from `first` (None: from the beginning) to `last`.

    A run has one range of partitions, which begins with the first that an asset lacks. Assets with other partitions in these days, such
    as monthly features of daily rows, get a run of their own, after what they depend on. Assets without partitions join any run; those
    without a partition in these days are left out.
    """
    partitions: dict[str, list[str]] = {}
    for key in keys:
        windows = calendar.windows(key) if assets[key].partitioned else []
        inside = [window.key for window in windows if window.first <= last and (first is None or first <= window.last)]
        if inside or not assets[key].partitioned:
            partitions[key] = inside
    waiting, runs = set(partitions), []
    while waiting:
        members: set[str] = set()
        chosen: list[str] = []
        while ready := _ready(assets, waiting - members):
            chosen = chosen or next((partitions[key] for key in ready if partitions[key]), [])
            joining = {key for key in ready if partitions[key] in ([], chosen)}
            if not joining:
                break
            members |= joining
        lacking = [key for key in chosen if not all(assets[member].covers(key, key) for member in members)]
        ends = ((lacking or chosen)[0], chosen[-1]) if chosen else (None, None)
        runs.append(StageRun(name, tuple(sorted(members)), *ends))
        waiting -= members
    return runs


def _ready(assets: Mapping[str, AssetState], waiting: set[str]) -> list[str]:
    """The assets of `waiting` that depend on none of the others."""
    return sorted(key for key in waiting if waiting.isdisjoint({*assets[key].dependencies} - {key}))
