"""Rebuilding what corrections touched: which partitions of which assets, and the runs that build them in order."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.core.settings import Settings
from mlops_assets.operations.changes import WHOLE, Changes, Partitions, followed_levels
from mlops_assets.operations.runs import follow_run

PURPOSE = "following corrections"

Launch = Callable[[Sequence[dg.AssetKey], str | None, str | None], None]
"""Materialize assets for the partitions from a first to a last one, None of assets without; return when it is done."""


@dataclass(frozen=True)
class TouchedAsset:
    """An asset whose inputs were corrected: how many of its partitions are outdated now, and how many may be so once these are built.

    `reach` tells how far a change reaches forward: "28 days on".
    """

    asset: str
    outdated: int
    touched: int
    first: str | None
    last: str | None
    reach: str


def touched_assets(instance: dg.DagsterInstance, graph: BaseAssetGraph) -> list[TouchedAsset]:
    """The assets that corrections touch, in the order in which they are built."""
    changes, levels = Changes(instance, graph), followed_levels(graph)
    touched = changes.touched(levels)
    outdated = changes.outdated(touched)
    return [
        TouchedAsset(
            asset=key.to_user_string(),
            outdated=len(outdated.get(key, ())),
            touched=len(partitions),
            first=min(partitions) or None,
            last=max(partitions) or None,
            reach=changes.reach(key, touched),
        )
        for key, partitions in touched.items()
    ]


def rebuild_outdated(instance: dg.DagsterInstance, graph: BaseAssetGraph, launch: Launch) -> dict[str, int]:
    """Build what is outdated, level by level, and return how many partitions of each asset were built.

    What reads an asset that came out as it was is not built. All is read from Dagster's events: after an interruption the same call goes on.
    """
    built: dict[str, int] = {}
    for level in followed_levels(graph):
        outdated = Changes(instance, graph).outdated(level)
        for keys, first, last in _runs(graph, outdated):
            launch(keys, first, last)
        built |= {key.to_user_string(): len(partitions) for key, partitions in outdated.items()}
    return built


def rebuild_from_changes(
    settings: Settings, instance: dg.DagsterInstance, graph: BaseAssetGraph, report: Callable[[str, RunState], None]
) -> dict[str, int]:
    """Build what is outdated in runs of the local Dagster; `report` hears how each stands. Raises StackError when one fails."""
    client = DagsterClient.from_settings(settings)
    states = client.assets()

    def launch(keys: Sequence[dg.AssetKey], first: str | None, last: str | None) -> None:
        names = [key.to_user_string() for key in keys]
        name = f"{', '.join(names)}{f' from {first} to {last}' if first else ''}"
        run_id = client.launch([states[each] for each in names], first, last, {}, purpose=PURPOSE)
        follow_run(client, run_id, name, lambda state: report(name, state))

    return rebuild_outdated(instance, graph, launch)


def _runs(graph: BaseAssetGraph, outdated: Partitions) -> Iterator[tuple[list[dg.AssetKey], str | None, str | None]]:
    """The runs of one level: assets that are outdated in the same ranges of the same partitions share them."""
    together: dict[tuple[dg.PartitionsDefinition | None, frozenset[str]], list[dg.AssetKey]] = defaultdict(list)
    for key, partitions in outdated.items():
        together[graph.get(key).partitions_def, partitions].append(key)
    for (definition, partitions), keys in together.items():
        if definition is None:
            yield keys, None, None
        else:
            for first, last in _ranges(definition.get_partition_keys(), partitions):
                yield keys, first, last


def _ranges(names: Sequence[str], wanted: frozenset[str]) -> Iterator[tuple[str, str]]:
    """First and last of each run of adjacent `names` that are wanted."""
    first = previous = None
    for name in [*names, WHOLE]:
        if name in wanted:
            first, previous = first or name, name
        elif first and previous:
            yield first, previous
            first = previous = None
