"""The feature catalog behind `mlops features`: views, their definition and statistics, search, and the impact of a change.

Everything is put together at the moment of asking from the dbt manifest, the solution files, the serving bundles and the lake.
Printing belongs to `features_cli.py`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.column_lineage import compiled_sql, read_lineage, relation_name, table_columns
from mlops_assets.feature_store.registry import FeatureRegistry, FeatureView, feature_view
from mlops_assets.feature_store.usage import (
    DeclaredSolutions,
    DeployedModel,
    ViewUse,
    declared_solutions,
    deployed_models,
    view_uses,
)
from mlops_assets.feature_store.usage import live_models as choose_live_models
from mlops_assets.schema.configuration_errors import nearest

BY_COLUMN = "columns followed through the compiled SQL, filters and joins included; may name too much"
BY_MODEL = "models followed through the dbt graph: everything downstream of the whole table"


class UnknownTargetError(LookupError):
    """No dbt model, raw table or column of that name; the message offers the nearest."""


@dataclass(frozen=True)
class FeatureCatalog:
    """The feature views of one dbt project, the solutions of one `defs` folder and the bundles of one installation."""

    project: Path
    definitions: Path
    settings: Settings

    @property
    def manifest_path(self) -> Path:
        """The dbt manifest that `mlops prepare` leaves."""
        return self.project / "target" / "manifest.json"

    @cached_property
    def registry(self) -> FeatureRegistry:
        """The feature views. Raises FileNotFoundError and FeatureViewError."""
        return FeatureRegistry.from_manifest(self.manifest_path)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The dbt manifest as it is."""
        return json.loads(self.manifest_path.read_text())

    @cached_property
    def declared(self) -> DeclaredSolutions:
        """The solutions, and the files that cannot be read."""
        return declared_solutions(self.definitions)

    @cached_property
    def uses(self) -> list[ViewUse]:
        """Every use of a view by a solution."""
        return view_uses(self.declared.solutions.values(), self.registry)

    @cached_property
    def models(self) -> list[DeployedModel]:
        """Every promoted model version on this machine."""
        return deployed_models(self.settings)

    @cached_property
    def view_nodes(self) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        """(view, version) -> its node of the manifest."""
        nodes = [node for node in self.manifest["nodes"].values() if node["resource_type"] == "model"]
        return {
            (view.name, view.version): node
            for node in nodes
            if node["meta"].get("feature_view") is not None
            for view in [feature_view(node)]
        }

    def views(self) -> list[dict[str, Any]]:
        """One entry a view and version, by name."""
        return [
            {
                "view": view.name,
                "version": view.version,
                "entity": list(view.entity),
                "freshness_days": view.freshness_days,
                "online": view.online,
                "features": len(view.features),
                "owner": view.owner,
                "used_by": sorted({use.solution for use in self.uses_of(view)}),
                "live_models": [model.label for model in self.live_models_of(view)],
                "description": view.description,
            }
            for _, view in sorted(self.registry.views.items())
        ]

    def uses_of(self, view: FeatureView) -> list[ViewUse]:
        """Solutions that use this version of the view."""
        return [use for use in self.uses if (use.view, use.version) == (view.name, view.version)]

    def live_models_of(self, view: FeatureView) -> list[DeployedModel]:
        """Models in production that read this version of the view."""
        return [model for model in choose_live_models(self.models) if (view.name, view.version) in model.views]

    def definition(self, view: FeatureView) -> dict[str, Any]:
        """Where and how the view is defined, its columns, where its data comes from and who uses it. Statistics are not in it."""
        node = self.view_nodes[view.name, view.version]
        roles = dict.fromkeys(view.entity, "entity") | ({view.event_timestamp: "event time"} if view.event_timestamp else {})
        versions = sorted(version for name, version in self.registry.views if name == view.name)
        return {
            "view": view.name,
            "version": view.version,
            "versions": versions,
            "table": view.model.table,
            "description": view.description,
            "about": view.model.description.strip(),
            "owner": view.owner,
            "entity": list(view.entity),
            "event_timestamp": view.event_timestamp,
            "freshness_days": view.freshness_days,
            "online": view.online,
            "sql": f"{self.project.name}/{node['original_file_path']}",
            "columns": [
                {
                    "column": column,
                    "type": kind,
                    "role": roles.get(column, "feature"),
                    "description": view.model.column_descriptions[column],
                }
                for column, kind in view.model.columns.items()
                if column in roles or column in view.features
            ],
            "upstream": sorted({relation_name(self._node(key)) for key in _upstream(self.manifest, node["unique_id"])}),
            "solutions": [
                {"solution": use.solution, "pinned": use.pinned, "features": list(use.features)} for use in self.uses_of(view)
            ],
            "model_versions": [model.label for model in self.models if (view.name, view.version) in model.views],
            "raw_code": node["raw_code"].strip(),
        }

    def compiled(self, view: FeatureView) -> str:
        """The view's SQL with its macros expanded."""
        return self._compiled_sql[self.view_nodes[view.name, view.version]["unique_id"]].strip()

    def statistics_tables(self, view: FeatureView) -> list[str]:
        """The lake tables that may hold statistics of the view."""
        return [f"features.{tag}_statistics" for tag in self.view_nodes[view.name, view.version]["tags"]]

    def search(self, words: str) -> list[dict[str, Any]]:
        """Views and features whose name or description holds all `words`, the best first: names count more than descriptions."""
        terms = words.lower().split()
        matches = []
        for _, view in sorted(self.registry.views.items()):
            texts: list[tuple[str | None, str, str]] = [(None, view.name, view.description)]
            texts += [(feature, feature, view.model.column_descriptions[feature]) for feature in view.features]
            for feature, name, description in texts:
                score = _score(terms, name.lower(), description.lower())
                if score:
                    entry = {"view": view.name, "version": view.version, "feature": feature, "description": description}
                    matches.append({**entry, "score": score})
        return sorted(matches, key=lambda entry: (-entry["score"], entry["view"], entry["feature"] or ""))

    def impact(self, target: str) -> dict[str, Any]:
        """Find all that depends on `target`: a dbt model or raw table (`staging.orders`, `order_history`), or one column of it.

        Raises UnknownTargetError, and LineageError when dbt cannot compile the project.
        """
        table, column = self._resolve(target)
        unreadable: tuple[str, ...] = ()
        if column is None:
            reached = {name: set(table_columns(self.manifest)[name]) for name in self._downstream(table)}
            reached[table] = set(table_columns(self.manifest)[table])
        else:
            lineage = read_lineage(self.manifest, self._compiled_sql)
            unreadable = lineage.unreadable
            reached = lineage.affected(table, column)
            reached.setdefault(table, set()).add(column)
        return {
            "table": table,
            "column": column,
            "level": "model" if column is None else "column",
            "how": BY_MODEL if column is None else BY_COLUMN,
            "taken_whole": list(unreadable),
            "tables": {name: sorted(columns) for name, columns in sorted(reached.items()) if name != table},
            **self._affected(reached),
        }

    def _affected(self, reached: Mapping[str, set[str]]) -> dict[str, Any]:
        """Views, solutions and live models that read one of the columns `reached`, by table."""
        features: dict[tuple[str, int], set[str]] = {}
        for key, view in self.registry.views.items():
            touched = reached.get(view.model.table, set())
            joined = {*view.entity, view.event_timestamp} & touched
            if hit := set(view.features) if joined else set(view.features) & touched:
                features[key] = hit
        solutions: dict[str, set[str]] = {}
        spines: dict[str, set[str]] = {}
        for use in self.uses:
            if hit := features.get((use.view, use.version), set()).intersection(use.features):
                solutions.setdefault(use.solution, set()).update(hit)
        for name, solution in self.declared.solutions.items():
            spine = self.registry.models.get(solution.spine_model)
            read = {solution.spine.key, solution.spine.prediction_time, solution.spine.label, solution.spine.label_time}
            read |= {solution.partitions.column, *(column for source in solution.features for column in source.request or [])}
            read |= {key for use in self.uses if use.solution == name for key in self._entity(use)}
            if spine and (hit := read & reached.get(spine.table, set())):
                spines[name] = hit
        return {
            "views": [
                {"view": name, "version": version, "features": sorted(hit)} for (name, version), hit in sorted(features.items())
            ],
            "solutions": [
                {"solution": name, "features": sorted(solutions.get(name, ())), "spine": sorted(spines.get(name, ()))}
                for name in sorted(solutions.keys() | spines.keys())
            ],
            "live_models": [
                {"model": model.label, "features": sorted(hit)}
                for model in choose_live_models(self.models)
                if (hit := self._features_hit(model, features, spines.get(model.solution, set())))
            ],
        }

    @staticmethod
    def _features_hit(model: DeployedModel, features: Mapping[tuple[str, int], set[str]], spine: set[str]) -> set[str]:
        read = spine.union(*(features.get(view, set()) for view in model.views))
        return read.intersection(model.features)

    def _entity(self, use: ViewUse) -> tuple[str, ...]:
        view = self.registry.views.get((use.view, use.version))
        return view.entity if view else ()

    @cached_property
    def _compiled_sql(self) -> Mapping[str, str]:
        return compiled_sql(self.project, self.manifest_path, self.settings.home / "lineage")

    def _node(self, key: str) -> Mapping[str, Any]:
        return self.manifest["sources"][key] if key.startswith("source.") else self.manifest["nodes"][key]

    def _downstream(self, table: str) -> set[str]:
        [start] = [key for key, name in self._tables().items() if name == table]
        reached, frontier = set(), [start]
        while frontier:
            children = [
                key for key in self.manifest["child_map"][frontier.pop()] if key.startswith("model.") and key not in reached
            ]
            reached.update(children)
            frontier += children
        return {relation_name(self._node(key)) for key in reached}

    def _tables(self) -> dict[str, str]:
        every = {**self.manifest["nodes"], **self.manifest["sources"]}
        return {key: relation_name(node) for key, node in every.items() if node["resource_type"] in ("model", "seed", "source")}

    def _resolve(self, target: str) -> tuple[str, str | None]:
        """The table, and its column if one is named."""
        columns = table_columns(self.manifest)
        names = {name: name for name in columns} | {name: model.table for name, model in self.registry.models.items()}
        if target in names:
            return names[target], None
        owner, _, column = target.rpartition(".")
        if owner in names:
            column_names = {name.lower(): name for name in columns[names[owner]]}
            if column.lower() in column_names:
                return names[owner], column_names[column.lower()]
            raise UnknownTargetError(f"{names[owner]} has no column {column!r}; {nearest(column, list(column_names.values()))}")
        raise UnknownTargetError(f"there is no dbt model or raw table {target!r}; {nearest(target, list(names))}")


def _upstream(manifest: Mapping[str, Any], unique_id: str) -> Iterator[str]:
    """The tables that nothing in the project computes, far enough upstream of a model."""
    parents = [key for key in manifest["parent_map"][unique_id] if not key.startswith("test.")]
    if not parents:
        yield unique_id
    for parent in parents:
        yield from _upstream(manifest, parent)


def _score(terms: list[str], name: str, description: str) -> int:
    """0 unless every word occurs; a whole part of the name counts 5, a part of it 3, the description 1."""
    parts = name.split("_")
    total = 0
    for word in terms:
        score = 5 if word in parts or word == name else 3 if word in name else 1 if word in description else 0
        if not score:
            return 0
        total += score
    return total
