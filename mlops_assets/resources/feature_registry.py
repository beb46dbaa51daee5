"""The feature registry: feature views and spines as the dbt manifest describes them. There is no second list."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


class UnknownModelError(LookupError):
    """No dbt model of that name and version; `available` are the names that exist."""

    def __init__(self, message: str, available: list[str]):
        super().__init__(message)
        self.available = available


@dataclass(frozen=True)
class DbtModel:
    """One dbt model: its lake table, its columns with type and description, the DATE column of its partitions (None = none)."""

    name: str
    table: str
    description: str
    columns: Mapping[str, str]
    column_descriptions: Mapping[str, str]
    partition_column: str | None


@dataclass(frozen=True)
class FeatureView:
    """A dbt model whose rows are feature values of one entity from a moment on.

    Without `event_timestamp` the values hold at all times. Values older than `freshness_days` at prediction time do not count.
    """

    model: DbtModel
    version: int
    entity: tuple[str, ...]
    event_timestamp: str | None
    freshness_days: int | None
    owner: str | None

    @property
    def name(self) -> str:
        """Name of the view."""
        return self.model.name

    @property
    def features(self) -> tuple[str, ...]:
        """The view's columns that are neither keys nor times nor audit columns."""
        others = {*self.entity, self.event_timestamp, self.model.partition_column}
        return tuple(column for column in self.model.columns if column not in others and not column.startswith("_"))


@dataclass(frozen=True)
class FeatureRegistry:
    """All dbt models by name, and the feature views among them by name and version."""

    models: Mapping[str, DbtModel]
    views: Mapping[tuple[str, int], FeatureView]

    @classmethod
    def from_manifest(cls, path: Path) -> "FeatureRegistry":
        """Read `manifest.json`; cached until the file changes. Raises FileNotFoundError with the command that makes it."""
        if not path.is_file():
            raise FileNotFoundError(f"No dbt manifest at {path}: run `mlops prepare`.")
        return _read_manifest(path, path.stat().st_mtime_ns)

    def model(self, name: str) -> DbtModel:
        """The dbt model `name`. Raises UnknownModelError."""
        if name not in self.models:
            raise UnknownModelError(f"there is no dbt model {name!r}", sorted(self.models))
        return self.models[name]

    def view(self, name: str, version: int | None) -> FeatureView:
        """The feature view `name` in `version` (None = the newest). Raises UnknownModelError."""
        versions = sorted(number for view, number in self.views if view == name)
        if not versions:
            raise UnknownModelError(f"there is no feature view {name!r}", sorted({view for view, _ in self.views}))
        if version is not None and version not in versions:
            raise UnknownModelError(f"feature view {name!r} has no version {version}", [str(number) for number in versions])
        return self.views[name, version or versions[-1]]


@lru_cache(maxsize=4)
def _read_manifest(path: Path, modified: int) -> FeatureRegistry:
    nodes = json.loads(path.read_text())["nodes"].values()
    models: dict[str, DbtModel] = {}
    views: dict[tuple[str, int], FeatureView] = {}
    for node in nodes:
        if node["resource_type"] != "model":
            continue
        model = _model(node)
        models[model.name] = model
        if described := node["meta"].get("feature_view"):
            version = int(node.get("version") or described.get("version") or 1)
            views[model.name, version] = FeatureView(
                model=model,
                version=version,
                entity=tuple(described["entity"]),
                event_timestamp=described.get("event_timestamp"),
                freshness_days=described.get("freshness_days"),
                owner=described.get("owner"),
            )
    return FeatureRegistry(models=models, views=views)


def _model(node: Mapping[str, Any]) -> DbtModel:
    columns = node["columns"].values()
    return DbtModel(
        name=node["name"],
        table=f"{node['schema']}.{node['alias']}",
        description=node["description"],
        columns={column["name"]: column.get("data_type") or "" for column in columns},
        column_descriptions={column["name"]: column["description"] for column in columns},
        partition_column=node["meta"].get("partition_column"),
    )
