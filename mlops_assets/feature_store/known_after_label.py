"""Features that are known only with the label or after it, found by the columns of raw tables that they are computed from.

It reads the compiled SQL and no data. A view says by its `event_timestamp` when its values are known; a column of the spine is known when the
prediction is made. Lineage by columns does not tell a sum of former labels from the label itself, so that what may be right is a doubt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlglot.errors import SqlglotError

from mlops_assets.feature_store.column_lineage import Column, relation_name, value_sources
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.schema.solution import Solution

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class LateFeature:
    """A feature that may tell the label: the field of the YAML that names it, what speaks for it, and whether it is certain."""

    path: Path
    message: str
    is_certain: bool


class ColumnOrigins:
    """The columns of raw tables that each column of a dbt model is computed from, however far upstream."""

    def __init__(self, manifest: Mapping[str, Any], compiled: Mapping[str, str]):
        self._manifest = manifest
        self._compiled = compiled
        self._models = {relation_name(node): node for node in manifest["nodes"].values() if node["resource_type"] == "model"}
        self._sources = cache(self._read_sources)

    def of(self, table: str, column: str) -> frozenset[Column]:
        """The origins of one column; of a raw table or a seed, itself."""
        return self._follow(table, column, frozenset())

    def _follow(self, table: str, column: str, passed: frozenset[Column]) -> frozenset[Column]:
        place = (table, column.lower())
        if table not in self._models or place in passed:
            return frozenset({place})
        upstream = self._sources(table).get(column.lower(), frozenset())
        return frozenset().union(*(self._follow(*source, passed | {place}) for source in upstream))

    def _read_sources(self, table: str) -> dict[str, frozenset[Column]]:
        node = self._models[table]
        try:
            sources = value_sources(self._manifest, node, self._compiled[node["unique_id"]])
        except SqlglotError:  # not read by the parser: nothing is known of it
            return {}
        return {name.lower(): columns for name, columns in sources.items()}


def find_late_features(
    solution: Solution, spine: DbtModel, views: Mapping[int, SelectedView], origins: ColumnOrigins
) -> Iterator[LateFeature]:
    """Features of `solution` that are computed from what its label is computed from; `views` are by their position in `features`."""
    declared = solution.spine
    known = origins.of(spine.table, declared.prediction_time) | origins.of(spine.table, declared.key)
    label = origins.of(spine.table, declared.label) - known
    later = origins.of(spine.table, declared.label_time) - known
    for position, source in enumerate(solution.features):
        for number, column in enumerate(source.request or []):
            path: Path = ("features", position, "request", number)
            yield from _of_request(path, column, origins.of(spine.table, column), label, later, declared.label)
        if position in views:
            yield from _of_view(("features", position, "view"), views[position], origins, label, later, declared.label)


def _of_request(
    path: Path, column: str, own: frozenset[Column], label: frozenset[Column], later: frozenset[Column], name: str
) -> Iterator[LateFeature]:
    if label and own >= label:
        message = f"{column} is computed from {_listed(label)}, all that {name} is computed from: it is known only with the label"
        yield LateFeature(path, f"{message}; leave it out", is_certain=True)
    elif later and own >= later:
        message = f"{column} is computed from {_listed(later)}, which is known only with the label"
        yield LateFeature(path, f"{message}; leave it out", is_certain=True)
    elif common := own & label:
        message = (
            f"{column} is computed from {_listed(common)}, and so is {name}; leave it out unless it is known at prediction time"
        )
        yield LateFeature(path, message, is_certain=False)


def _of_view(
    path: Path, chosen: SelectedView, origins: ColumnOrigins, label: frozenset[Column], later: frozenset[Column], name: str
) -> Iterator[LateFeature]:
    view = chosen.view
    late = {feature: common for feature in chosen.features if (common := origins.of(view.model.table, feature) & label)}
    if not late:
        return
    features, columns = ", ".join(late), _listed(frozenset().union(*late.values()))
    if view.event_timestamp is None:
        message = (
            f"{features} of {view.name} are computed from {columns} as {name} is, and hold at all times: add event_timestamp"
        )
        yield LateFeature(path, f"{message}, the moment from which they are known", is_certain=True)
    elif later and not origins.of(view.model.table, view.event_timestamp) & later.union(*late.values()):
        message = (
            f"{features} of {view.name} are computed from {columns} as {name} is, but {view.event_timestamp} is not computed from "
            f"{_listed(later)}, when that became known"
        )
        yield LateFeature(path, f"{message}; use that moment", is_certain=False)


def _listed(columns: frozenset[Column]) -> str:
    return ", ".join(sorted(f"{table}.{column}" for table, column in columns))
