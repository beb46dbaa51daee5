"""The parts of each solution of a project: its folders, the dbt models and raw tables behind it, and what others share with it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.components.faults import DEFINITIONS_FILE
from mlops_assets.core.project import Project
from mlops_assets.feature_store.column_lineage import relation_name
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.schema.declarations import Declarations, declared_sources, read_declarations
from mlops_assets.schema.solution import Solution

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class SolutionParts:
    """What a solution consists of: its own folder, and behind it ids of dbt models, raw tables, and the folders that make both assets."""

    folder: Path
    models: frozenset[str]
    raw_tables: frozenset[str]
    upstream_folders: frozenset[Path]

    @property
    def folders(self) -> frozenset[Path]:
        """All folders of `defs/` that it needs."""
        return self.upstream_folders | {self.folder}


def read_manifest(project: Project) -> Manifest:
    """The manifest of the dbt project; an empty one where it was never parsed."""
    path = project.dbt_manifest
    return json.loads(path.read_text()) if path.is_file() else {"nodes": {}, "sources": {}}


def definition_folders(project: Project) -> dict[str, Path]:
    """The folders of `defs/` that a YAML file describes, by name."""
    return {path.parent.name: path.parent for path in sorted(project.definitions_directory.glob(f"*/{DEFINITIONS_FILE}"))}


def solution_parts(project: Project, manifest: Manifest) -> dict[str, SolutionParts]:
    """The parts of every valid solution by name. Models that do not exist are left out: loading says so."""
    declarations = read_declarations(project.definitions_directory)
    solutions = declared_solutions(project.definitions_directory).solutions
    folders = {
        str((declaration.attributes or {}).get("name")): declaration.file.parent for declaration in declarations.of("MLSolution")
    }
    ids = {relation_name(node): key for key, node in _models(manifest).items()}
    registry = FeatureRegistry.from_manifest(project.dbt_manifest) if manifest["nodes"] else FeatureRegistry({}, {})
    parts = {}
    for name, solution in solutions.items():
        tables = _tables(solution, registry)
        models = _closure(manifest, [ids[table] for table in tables if table in ids])
        models |= {key for key, node in _models(manifest).items() if name in node["tags"]}
        raw = {manifest["sources"][key]["name"] for key in _sources(manifest, models)} | {solution.spine.table or ""} - {""}
        parts[name] = SolutionParts(
            folder=folders[name],
            models=frozenset(models),
            raw_tables=frozenset(raw),
            upstream_folders=frozenset(_folders(declarations, manifest, models, raw)) - {folders[name]},
        )
    return parts


def model_files(manifest: Manifest, models: Iterable[str]) -> set[str]:
    """The files of models, in the dbt project: their SQL or CSV, and what describes them."""
    nodes = [manifest["nodes"][key] for key in models]
    described = {node["patch_path"].split("://")[-1] for node in nodes if node.get("patch_path")}
    return {node["original_file_path"] for node in nodes} | described


def _models(manifest: Manifest) -> dict[str, Any]:
    return {key: node for key, node in manifest["nodes"].items() if node["resource_type"] in ("model", "seed")}


def _tables(solution: Solution, registry: FeatureRegistry) -> list[str]:
    tables = [registry.models[solution.spine_model].table] if solution.spine_model in registry.models else []
    for source in solution.features:
        if source.view is not None:
            versions = [number for name, number in registry.views if name == source.view]
            version = source.version if source.version in versions else max(versions, default=None)
            if version is not None:
                tables.append(registry.views[source.view, version].model.table)
    return tables


def _closure(manifest: Manifest, start: Iterable[str]) -> set[str]:
    """The models `start` with all models that they are computed from."""
    reached: set[str] = set()
    todo = list(start)
    while todo:
        key = todo.pop()
        if key not in reached:
            reached.add(key)
            todo += [parent for parent in _parents(manifest["nodes"][key]) if parent in manifest["nodes"]]
    return reached


def _sources(manifest: Manifest, models: Iterable[str]) -> set[str]:
    return {parent for key in models for parent in _parents(manifest["nodes"][key]) if parent in manifest["sources"]}


def _parents(node: Any) -> list[str]:
    return list(node.get("depends_on", {}).get("nodes", []))


def _folders(declarations: Declarations, manifest: Manifest, models: Iterable[str], raw: Iterable[str]) -> Iterable[Path]:
    """The folders whose components load `raw` tables or make assets of `models`."""
    tags = {tag for key in models for tag in manifest["nodes"][key]["tags"]}
    for file, source in declared_sources(declarations).values():
        if source.tables.keys() & set(raw):
            yield file.parent
    for declaration in declarations.of("DbtModels"):
        if str((declaration.attributes or {}).get("select")).removeprefix("tag:") in tags:
            yield declaration.file.parent
