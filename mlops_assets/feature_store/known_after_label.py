"""Features that are known only with the label or after it, found by the columns of raw tables that they are computed from.

It reads the compiled SQL and no data. A view says by its `event_timestamp` when its values are known; a column of the spine is known when the
prediction is made. Lineage by columns does not tell a sum of former labels from the label itself, so that what may be right is a doubt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from mlops_assets.feature_store.column_lineage import Column, relation_name, row_sources, value_sources
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import RawTable

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class LateFeature:
    """A feature that may tell the label: the field of the YAML that names it, what speaks for it, and whether it is certain."""

    path: Path
    message: str
    is_certain: bool


class ColumnOrigins:
    """The columns of raw tables that each column of a dbt model is computed from, however far upstream."""

    def __init__(self, manifest: Mapping[str, Any], compiled: Mapping[str, str], raw_tables: Mapping[str, RawTable]):
        self._manifest = manifest
        self._compiled = compiled
        self._raw = {f"raw.{name}": table for name, table in raw_tables.items()}
        self._models = {relation_name(node): node for node in manifest["nodes"].values() if node["resource_type"] == "model"}
        self._sources = cache(self._read_sources)

    def of(self, table: str, column: str) -> frozenset[Column]:
        """The origins of one column; of a raw table or a seed, itself."""
        return self._follow(table, column, frozenset())

    def deciding(self, table: str) -> frozenset[Column]:
        """The origins of what decides which rows a model reads or has, upstream models included."""
        if table not in self._models:
            return frozenset()
        node = self._models[table]
        try:
            rows = row_sources(self._manifest, self._compiled[node["unique_id"]])
        except SqlglotError:
            rows = frozenset()
        parents = {
            relation_name(self._manifest["nodes"][key]) for key in node["depends_on"]["nodes"] if key in self._manifest["nodes"]
        }
        return frozenset().union(*(self.of(*column) for column in rows), *map(self.deciding, parents))

    def _follow(self, table: str, column: str, passed: frozenset[Column]) -> frozenset[Column]:
        place = (table, column.lower())
        upstream = self._computed(*place) if table in self._raw else self._sources(table).get(column.lower(), frozenset())
        if (table in self._raw and not upstream) or table not in {*self._models, *self._raw} or place in passed:
            return frozenset({place})
        return frozenset().union(*(self._follow(*source, passed | {place}) for source in upstream))

    def _computed(self, table: str, column: str) -> frozenset[Column]:
        """The columns of a raw table that its YAML computes another one from."""
        expressions = {name.lower(): declared.expression for name, declared in self._raw[table].columns.items()}
        expression = expressions.get(column)
        if expression is None:
            return frozenset()
        try:
            names = {read.name.lower() for read in parse_one(expression, dialect="duckdb").find_all(exp.Column)}
        except SqlglotError:
            return frozenset()
        return frozenset((table, name) for name in names if name in expressions)

    def _read_sources(self, table: str) -> dict[str, frozenset[Column]]:
        if table not in self._models:
            return {}
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
    elif later and not _is_bounded(origins, view.model.table, view.event_timestamp, later.union(*late.values())):
        message = (
            f"{features} of {view.name} are computed from {columns} as {name} is, and nothing there looks at {_listed(later)}, "
            f"when that became known; count only rows that were known at {view.event_timestamp}"
        )
        yield LateFeature(path, message, is_certain=False)


def _is_bounded(origins: ColumnOrigins, table: str, event_timestamp: str, later: frozenset[Column]) -> bool:
    """Whether a view looks at when its values became known: in its event timestamp, or in what decides which rows it counts."""
    return bool((origins.of(table, event_timestamp) | origins.deciding(table)) & later)


def _listed(columns: frozenset[Column]) -> str:
    return ", ".join(sorted(f"{table}.{column}" for table, column in columns))
