"""`DbtModels`: the models of the dbt project that have one tag, as assets."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, model_validator

from mlops_assets.components.scaffolding import DbtModelsScaffolder
from mlops_assets.components.tagged_models import TAG, build_selection, select_models
from mlops_assets.components.yaml_component import YamlComponent
from mlops_assets.core.partitions import build_partitions
from mlops_assets.core.project import current_project
from mlops_assets.features.dbt_models import DbtSelection
from mlops_assets.schema.cadence import Cadence
from mlops_assets.schema.configuration_errors import ConfigurationError, nearest
from mlops_assets.schema.time_partitions import check_bounds
from mlops_assets.schema.yaml_model import YamlModel


class DbtPartitions(YamlModel):
    """Partitions of the incremental models: from `start` to `end` (exclusive; left out: open)."""

    start: date
    """First day."""
    end: date | None = None
    """Day after the last one; left out, the partitions go on to today."""
    cadence: Cadence
    """Length of a partition."""

    @model_validator(mode="after")
    def _has_whole_partitions(self) -> "DbtPartitions":
        check_bounds(self.start, self.end, self.cadence)
        return self


class DbtModelsAttributes(YamlModel):
    """`project` is a folder relative to the root of the repository, `select` is `tag:<name>`."""

    project: str
    """Folder of the dbt project, from the root of the repository."""
    select: str = Field(pattern=rf"^{TAG}\w+$")
    """`tag:<name>`: the models and seeds with that tag become assets."""
    partitions: DbtPartitions
    """Partitions of the incremental models; tables, views and seeds have none."""


@dg.scaffold_with(DbtModelsScaffolder)
class DbtModels(YamlComponent):
    """Tables built by dbt: the models and seeds with one tag. Its attributes are `DbtModelsAttributes`.

    A run is one dbt call for its whole window, asset keys are the names of the tables in the lake, and every materialization has
    row counts. Loading reads the manifest that `mlops prepare` left; it runs no dbt, unlike `dagster_dbt.DbtProjectComponent`.
    """

    model = DbtModelsAttributes

    def __init__(self, attributes: DbtModelsAttributes):
        self.attributes = attributes

    def definitions(self, folder: Path, *, origin: Mapping[str, Any]) -> dg.Definitions:
        """One op with one asset for each model and seed with the tag. Raises ConfigurationError when there is none."""
        return dg.Definitions(assets=build_selection(self._selection(origin)))

    def check(self) -> None:
        """Raise ConfigurationError when there is no such project, or none of its models has the tag."""
        self._selection({})

    def _selection(self, origin: Mapping[str, Any]) -> DbtSelection:
        tag = self.attributes.select.removeprefix(TAG)
        partitions = self.attributes.partitions
        declared = build_partitions(partitions.start, partitions.end, partitions.cadence)
        selection = select_models(self._project(), tag, declared, partitions.cadence, origin=origin)
        if not selection.nodes:
            tags = sorted({name for node in selection.manifest["nodes"].values() for name in node["tags"]})
            raise ConfigurationError(("select",), f"no dbt model has the tag {tag!r}; {nearest(tag, tags)}")
        return selection

    def _project(self) -> Path:
        directory = current_project().root / self.attributes.project
        if not (directory / "dbt_project.yml").exists():
            raise ConfigurationError(("project",), f"there is no dbt_project.yml in {directory}")
        manifest = directory / "target" / "manifest.json"
        if not manifest.exists():
            raise ConfigurationError(("project",), f"{manifest} is missing: run `mlops prepare`")
        return directory
