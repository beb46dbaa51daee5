"""The dbt models with one tag as assets, whichever component loads them.

A source or a solution loads the models that have its name as a tag, compiled or written by hand, unless a `DbtModels` selects the tag.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.core.partitions import build_partitions
from mlops_assets.core.project import current_project
from mlops_assets.features.dagster_dbt import DbtProject
from mlops_assets.features.dbt_models import DbtSelection, build_dbt_assets
from mlops_assets.features.statistics_assets import build_feature_statistics
from mlops_assets.schema.cadence import Cadence
from mlops_assets.schema.declarations import Declarations, read_declarations
from mlops_assets.schema.time_partitions import Partitions

TAG = "tag:"


def select_models(
    directory: Path,
    tag: str,
    partitions: dg.TimeWindowPartitionsDefinition,
    cadence: Cadence,
    *,
    origin: Mapping[str, Any],
) -> DbtSelection:
    """The models and seeds with `tag` of the dbt project in `directory`, which is parsed, for assets with the metadata `origin`."""
    project = _read_project(directory, (directory / "dbt_project.yml").stat().st_mtime_ns)
    return DbtSelection(project=project, tag=tag, partitions=partitions, cadence=cadence, origin=origin)


@lru_cache(maxsize=4)
def _read_project(directory: Path, modified: int) -> DbtProject:
    """Read `dbt_project.yml`, which every component asks for, once for each time it was modified."""
    return DbtProject(directory)


def build_selection(selection: DbtSelection) -> list[dg.AssetsDefinition]:
    """One op with one asset for each node of `selection`, and the statistics of its feature views."""
    statistics = [build_feature_statistics(selection)] if selection.views else []
    return [build_dbt_assets(selection, name=f"dbt_{selection.tag}"), *statistics]


def build_own_models(name: str, partitions: Partitions, *, origin: Mapping[str, Any]) -> list[dg.AssetsDefinition]:
    """The assets of the models with the tag `name`, the name of a source or a solution; none when a `DbtModels` has them."""
    project = current_project()
    if not project.dbt_manifest.exists() or name in _selected_tags(read_declarations(project.definitions_directory)):
        return []
    declared = build_partitions(partitions.start, partitions.end, partitions.cadence)
    selection = select_models(project.dbt_project, name, declared, partitions.cadence, origin=origin)
    return build_selection(selection) if selection.nodes else []


@lru_cache(maxsize=4)
def _selected_tags(declarations: Declarations) -> set[str]:
    """The tags that the `DbtModels` of a `defs` folder select."""
    attributes = [declaration.attributes for declaration in declarations.of("DbtModels")]
    return {str(each.get("select")).removeprefix(TAG) for each in attributes if isinstance(each, dict)}
