"""Jobs of assets, which Dagster builds from the few assets that they concern.

`dg.define_asset_job` looks at all assets of a project for each job. With fifty solutions and 400 jobs that took longer than loading them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


class AssetJob(UnresolvedAssetJobDefinition):
    """A job as `dg.define_asset_job` defines it, whose result is the same."""

    def resolve(self, asset_graph: AssetGraph, *arguments: Any, **keywords: Any) -> dg.JobDefinition:
        """Build the job from the assets and checks that it selects and those that they read."""
        keys = self.selection.resolve(asset_graph)
        # To look for the checks of assets, Dagster goes through all there are: only a selection of checks alone asks for them.
        keys = keys or {check.asset_key for check in self.selection.resolve_checks(asset_graph)}
        job = super().resolve(_part(asset_graph, keys), *arguments, **keywords)
        # Whatever is asked of the graph of the project gets all of it.
        vars(job.asset_layer.asset_graph)["_source_asset_graph"] = asset_graph
        return job


def define_job(name: str, *, selection: dg.AssetSelection, description: str, **attributes: Any) -> AssetJob:
    """The job `name` of the assets or checks in `selection`."""
    return AssetJob(name=name, selection=selection, description=description, **attributes)


def _part(asset_graph: AssetGraph, keys: Iterable[dg.AssetKey]) -> AssetGraph:
    """The graph of the assets `keys`, of the checks about them, and of the assets that these read."""
    by_key, by_checked = _index(asset_graph)
    definitions = {definition for key in keys for definition in (*by_key[key], *by_checked[key])}
    touched = {
        key
        for definition in definitions
        for key in (*definition.node_keys_by_input_name.values(), *definition.node_keys_by_output_name.values())
    }
    definitions |= {definition for key in touched for definition in by_key[key]}
    return AssetGraph(*AssetGraph.key_mappings_from_assets(definitions))


_Definitions = Mapping[dg.AssetKey, list[dg.AssetsDefinition]]


@lru_cache(maxsize=2)
def _index(asset_graph: AssetGraph) -> tuple[_Definitions, _Definitions]:
    """The definitions of each asset, and those of the checks about it."""
    by_key, by_checked = defaultdict(list), defaultdict(list)
    for definition in asset_graph.assets_defs:
        for key in definition.keys:
            by_key[key].append(definition)
        for checked in {check.asset_key for check in definition.check_keys}:
            by_checked[checked].append(definition)
    return by_key, by_checked
