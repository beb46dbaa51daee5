"""The loading of `defs/`, folder by folder: a configuration error is reported with its place and remedy, and the other folders still load."""

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions import input as asset_inputs
from dagster._core.definitions import output as asset_outputs
from dagster._core.definitions.assets.job import asset_in
from dagster._core.types.dagster_type import DagsterType, resolve_dagster_type
from dagster.components.core.component_tree import ComponentTree
from dagster_shared.record import copy

from mlops_assets.components.dbt_models import DbtModels
from mlops_assets.components.faults import (
    DEFINITIONS_FILE,
    MISTAKES,
    Fault,
    causes,
    component_class,
    explain,
    require_single_keys,
)
from mlops_assets.components.ml_solution import MLSolution
from mlops_assets.components.raw_tables import RawTables
from mlops_assets.components.yaml_component import YamlComponent
from mlops_assets.components.yaml_file import YamlFile
from mlops_assets.core.origin import origin_metadata
from mlops_assets.core.project import current_project

_LOGGER = logging.getLogger(__name__)

_OWN = (DbtModels, MLSolution, RawTables)


@dataclass(frozen=True)
class LoadedFolder:
    """A folder of `defs/`: its definitions, or what is wrong with it. `cause` is the error where that is no mistake in a file."""

    path: Path
    definitions: dg.Definitions | None
    faults: Sequence[Fault]
    cause: Exception | None = None


def load_folders(module: str, directory: Path) -> dg.Definitions:
    """Merge the definitions of each folder in `directory` (the package `module`).

    A folder whose YAML cannot be loaded, or whose assets another folder has already, is logged and stands in the graph as the asset
    `configuration_error/<folder>` that says why. An error of a folder of Python code is raised.
    """
    loaded: list[dg.Definitions] = []
    for folder in read_folders(module, directory):
        if folder.definitions is not None:
            loaded.append(folder.definitions)
            continue
        problems = [str(fault) for fault in folder.faults]
        _LOGGER.error("defs/%s is not loaded:\n%s", folder.path.name, "\n".join(problems), exc_info=folder.cause)
        loaded.append(_error_definitions(folder.path.name, problems))
    return dg.Definitions.merge(*loaded)


def read_folders(module: str, directory: Path) -> Iterator[LoadedFolder]:
    """Load each folder in `directory` (the package `module`). An error of a folder of Python code is raised."""
    # Component code references, backfill policies and partitioned checks are marked beta or preview; the lock pins what was tested.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    owners: dict[dg.AssetKey, str] = {}
    for folder in sorted(path for path in directory.iterdir() if _is_source(path)):
        try:
            with _fast_types():
                definitions = load_folder(f"{module}.{folder.name}", folder)
        except Exception as error:
            # Whatever a YAML file holds: Dagster wraps some of its errors and raises others as they are.
            if not (folder / DEFINITIONS_FILE).is_file():
                raise
            # The traceback matters for a fault of the code; what is wrong in a file is said in full.
            is_mistake = any(isinstance(cause, MISTAKES) for cause in causes(error))
            yield LoadedFolder(folder, None, explain(error, folder), cause=None if is_mistake else error)
            continue
        keys = _asset_keys(definitions)
        if repeated := sorted(key for key in keys if key in owners):
            message = f"the asset {repeated[0].to_user_string()} is already defined in defs/{owners[repeated[0]]}; rename one"
            yield LoadedFolder(folder, None, [Fault(folder / DEFINITIONS_FILE, None, "", message)])
            continue
        owners |= dict.fromkeys(keys, folder.name)
        yield LoadedFolder(folder, definitions, [])


def _is_source(path: Path) -> bool:
    """Whether `path` is a folder with definitions. Of a folder that was removed from the repository, its compiled bytecode stays."""
    hidden = path.name.startswith(("_", "."))
    return path.is_dir() and not hidden and any(entry.name != "__pycache__" for entry in path.iterdir())


def load_folder(module: str, folder: Path) -> dg.Definitions:
    """The definitions of one `folder` below `defs` (the package `module`). Raises an error that `explain` reads when a file in it is wrong."""
    path = folder / DEFINITIONS_FILE
    if path.is_file():
        file = YamlFile(path)
        require_single_keys(file)
        if components := _own_components(file):
            return dg.Definitions.merge(*components)
    package = importlib.import_module(module)
    tree = ComponentTree.from_module(package, current_project().root)
    # By its path: without one Dagster adds a JSON schema of every component type that is installed, 0.3 s a folder.
    definitions = tree.build_defs(folder)
    # Definitions that each carry a component tree cannot be merged.
    return copy(definitions, component_tree=None)


def _own_components(file: YamlFile) -> list[dg.Definitions] | None:
    """The definitions of the components in `file`; None when it has one of others, or uses what only Dagster's loading does.

    They are what Dagster makes of such a file. It takes a third of the time of loading to find the components and to copy their assets.
    """
    definitions = []
    for document, line in zip(file.documents, file.lines, strict=True):
        component_type = _own_type(document)
        if component_type is None:
            return None
        component = component_type(component_type.model.model_validate(document["attributes"]))
        origin = origin_metadata(component, file=file.path, line=line)
        definitions.append(component.definitions(file.path.parent, origin=origin))
    return definitions or None


def _own_type(document: Any) -> type[YamlComponent] | None:
    if not isinstance(document, dict) or set(document) != {"type", "attributes"}:
        return None
    component_type = component_class(document)
    return component_type if component_type in _OWN else None


@contextmanager
def _fast_types() -> Iterator[None]:
    """Inside the block Dagster takes a type of its own as it is. It looks each up among the types of Python, a ninth of the time of loading."""
    modules = (asset_inputs, asset_outputs, asset_in)
    for module in modules:
        vars(module)["resolve_dagster_type"] = _resolve_type
    try:
        yield
    finally:
        for module in modules:
            vars(module)["resolve_dagster_type"] = resolve_dagster_type


@lru_cache(maxsize=64)
def _resolve_type(dagster_type: Any) -> DagsterType:
    return dagster_type if isinstance(dagster_type, DagsterType) else resolve_dagster_type(dagster_type)


def _asset_keys(definitions: dg.Definitions) -> set[dg.AssetKey]:
    keys: set[dg.AssetKey] = set()
    for asset in definitions.assets or []:
        if isinstance(asset, dg.AssetsDefinition):
            keys |= asset.keys
        elif isinstance(asset, dg.AssetSpec):
            keys.add(asset.key)
    return keys


def _error_definitions(folder: str, problems: list[str]) -> dg.Definitions:
    spec = dg.AssetSpec(
        key=["configuration_error", folder],
        group_name="configuration_error",
        description="**Not loaded.** Mend the file and reload the code location.\n\n"
        + "\n".join(f"- `{line}`" for line in problems),
        metadata={"problems": dg.MetadataValue.json(problems)},
        kinds={"yaml"},
    )
    return dg.Definitions(assets=[spec])
