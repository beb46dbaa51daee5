"""The removal of a solution: what would go and what stays, and doing it. What another solution or model uses is never touched.

Kept on purpose: raw tables with their sources, which others may load from, and the runs and versions in MLflow, which are the record of what was
decided. A solution of the same name that is added later begins without a champion.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.clients.champion import RegistryUnreachableError, registered_aliases
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project, current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.column_lineage import relation_name
from mlops_assets.features.contracts import CONTRACTS_TABLE
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, literal
from mlops_assets.lake.tables import LakeError, table_exists
from mlops_assets.operations.solution_parts import Manifest, SolutionParts, read_manifest, solution_parts
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.declarations import read_declarations
from mlops_assets.serving.bundle_store import open_bundle_store

_MODEL_KINDS = ("model", "seed", "snapshot")


@dataclass(frozen=True)
class Removal:
    """What a removal deletes: folders of `defs/`, files of the dbt project, tables of the lake (name -> table or view), views of the
    registry, aliases of the model, and whether bundles are served. `kept` says what stays, and why.
    """

    solution: str
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    tables: Mapping[str, str]
    views: tuple[str, ...]
    aliases: tuple[str, ...]
    has_bundles: bool
    kept: tuple[str, ...]


def plan_removal(settings: Settings, solution: str) -> Removal:
    """What removing `solution` would delete and keep; changes nothing. Raises StackError when no valid file declares it."""
    project = current_project()
    manifest = read_manifest(project)
    parts = solution_parts(project, manifest)
    if solution not in parts:
        raise StackError(
            f"No file of defs/ declares the solution {solution!r}.", remedy=f"Names: {nearest(solution, sorted(parts))}"
        )
    own = _own_models(solution, parts, manifest)
    folders = [parts[solution].folder, *_own_folders(parts[solution], own, manifest)]
    kept = [f"raw table {name} and its source" for name in sorted(parts[solution].raw_tables)]
    if shared := sorted(manifest["nodes"][key]["name"] for key in parts[solution].models - own):
        kept.append(f"dbt models that others use: {', '.join(shared)}")
    tables: dict[str, str] = {}
    try:
        tables = find_tables(Lake.from_settings(settings), solution, {relation_name(manifest["nodes"][key]) for key in own})
    except LakeError:
        kept.append("tables of the lake: it does not run (mlops up)")
    try:
        aliases = tuple(registered_aliases(settings).get(solution, {}))
        kept.append("runs and versions in MLflow, without the aliases that make one predict")
    except RegistryUnreachableError:
        aliases = ()
        kept.append("the model in MLflow with its aliases: it does not run (mlops up)")
    if project.demo_file.is_file() and solution in project.demo_file.read_text().split():
        kept.append(f"{project.demo_file.name}, which names it: change it")
    return Removal(
        solution=solution,
        folders=tuple(folders),
        files=tuple(sorted(_files(project, own, manifest))),
        tables=tables,
        views=tuple(sorted(manifest["nodes"][key]["name"] for key in own if manifest["nodes"][key]["meta"].get("feature_view"))),
        aliases=aliases,
        has_bundles=solution in open_bundle_store(settings).solutions(),
        kept=tuple(kept),
    )


def remove(settings: Settings, removal: Removal) -> None:
    """Delete what `removal` lists: first what predicts, then the tables, then the files, so that one that is interrupted can be repeated."""
    solution = removal.solution
    if removal.aliases:
        from mlops_assets.clients.model_registry import ModelRegistry

        registry = ModelRegistry.from_settings(settings)
        for alias in removal.aliases:
            registry.remove_alias(solution, alias)
    if removal.has_bundles:
        bundles = open_bundle_store(settings).of(solution)
        for alias in list(bundles.aliases()):
            bundles.deactivate(alias)
        for bundle in bundles.stored():
            bundles.remove(bundle)
        shutil.rmtree(settings.serving_directory / solution, ignore_errors=True)
        shutil.rmtree(settings.switches_directory / solution, ignore_errors=True)
    if removal.tables:
        drop_tables(Lake.from_settings(settings), removal.tables, removal.views)
    for path in (*removal.files, *removal.folders):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _remove_empty_folders({path.parent for path in removal.files})


def _own_models(solution: str, parts: Mapping[str, SolutionParts], manifest: Manifest) -> set[str]:
    """The models that only `solution` uses, and nothing that stays is computed from."""
    others = set().union(*(part.models for name, part in parts.items() if name != solution))
    own = set(parts[solution].models - others)
    while stays := {key for key in own if any(child not in own for child in _children(key, manifest))}:
        own -= stays
    return own


def _children(key: str, manifest: Manifest) -> list[str]:
    nodes = manifest["nodes"]
    return [
        child
        for child in manifest["child_map"].get(key, [])
        if not child.startswith(("test.", "unit_test.")) and (child not in nodes or nodes[child]["resource_type"] in _MODEL_KINDS)
    ]


def _own_folders(parts: SolutionParts, own: set[str], manifest: Manifest) -> Iterator[Path]:
    """The folders whose only purpose is to make assets of models that go."""
    for declaration in read_declarations(current_project().definitions_directory).of("DbtModels"):
        tag = str((declaration.attributes or {}).get("select")).removeprefix("tag:")
        tagged = {key for key, node in manifest["nodes"].items() if node["resource_type"] in _MODEL_KINDS and tag in node["tags"]}
        if declaration.file.parent in parts.upstream_folders and tagged and tagged <= own:
            yield declaration.file.parent


def _files(project: Project, own: set[str], manifest: Manifest) -> Iterator[Path]:
    """The files of the models that go, and those that describe or test nothing else. Compiled ones go by themselves."""
    directory = project.dbt_project
    described: dict[str, set[str]] = {}
    for key, node in manifest["nodes"].items():
        if node["resource_type"] in _MODEL_KINDS and node.get("patch_path"):
            described.setdefault(node["patch_path"].split("://")[-1], set()).add(key)
    names = {manifest["nodes"][key]["original_file_path"] for key in own}
    names |= {name for name, keys in described.items() if keys <= own}
    for node in manifest["nodes"].values():
        # A test in a file of its own.
        if node["resource_type"] == "test" and not node.get("test_metadata") and own.intersection(node["depends_on"]["nodes"]):
            names.add(node["original_file_path"])
    readers: dict[str, set[str]] = {}
    for key, source in manifest["sources"].items():
        children = manifest["child_map"].get(key, [])
        readers.setdefault(source["original_file_path"], set()).update(child for child in children if child.startswith("model."))
    names |= {name for name, keys in readers.items() if keys and keys <= own}
    yield from (directory / name for name in names if not name.startswith("generated/") and (directory / name).is_file())


def find_tables(lake: Lake, schema: str, tables: Collection[str]) -> dict[str, str]:
    """The tables and views of `schema`, and those of `tables`, that are in the lake, with their kind. Raises LakeError."""
    with lake.connect(read_only=True) as connection:
        rows = connection.execute(
            "SELECT table_schema || '.' || table_name, table_schema, table_type FROM information_schema.tables "
            "WHERE table_catalog = 'lake' ORDER BY ALL"
        ).fetchall()
    return {name: "VIEW" if kind == "VIEW" else "TABLE" for name, own, kind in rows if own == schema or name in tables}


def drop_tables(lake: Lake, tables: Mapping[str, str], views: Collection[str]) -> None:
    """Drop `tables` (name -> kind) and forget the contracts of feature `views`, in one transaction that waits for writers."""
    with lake.writer_lock([*tables, CONTRACTS_TABLE]), lake.connect(read_only=False) as connection:
        connection.execute("BEGIN")
        try:
            # Views first: they read tables.
            for name, kind in sorted(tables.items(), key=lambda item: item[1] != "VIEW"):
                connection.execute(f"DROP {kind} IF EXISTS {lake_name(name)}")
            if views and table_exists(connection, CONTRACTS_TABLE):
                names = ", ".join(map(literal, views))
                connection.execute(f"DELETE FROM {lake_name(CONTRACTS_TABLE)} WHERE view IN ({names})")
            connection.execute("COMMIT")
        except BaseException:  # an interrupt too leaves no open transaction, and is raised again
            connection.execute("ROLLBACK")
            raise


def _remove_empty_folders(folders: set[Path]) -> None:
    for folder in sorted(folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
