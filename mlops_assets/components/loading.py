"""The loading of `defs/`, folder by folder: a configuration error is reported with its place and remedy, and the other folders still load."""

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import dagster as dg
from dagster.components.core.component_tree import ComponentTree
from dagster_shared.record import copy
from dagster_shared.yaml_utils import parse_yaml_with_source_position
from pydantic import BaseModel, ValidationError
from yaml import MarkedYAMLError

from mlops_assets.core.project import current_project
from mlops_assets.schema.configuration_errors import ConfigurationError, nearest

_LOGGER = logging.getLogger(__name__)

_MISTAKES = (ConfigurationError, ValidationError, MarkedYAMLError)
"""Errors that a YAML file can cause and whose message names its place."""


def load_folders(module: str, directory: Path) -> dg.Definitions:
    """Merge the definitions of each folder in `directory` (the package `module`).

    A folder whose YAML cannot be loaded, or whose assets another folder has already, is logged and stands in the graph as the asset
    `configuration_error/<folder>` that says why. An error of a folder of Python code is raised.
    """
    loaded: list[dg.Definitions] = []
    owners: dict[dg.AssetKey, str] = {}
    for folder in sorted(path for path in directory.iterdir() if _is_source(path)):
        try:
            definitions = load_folder(f"{module}.{folder.name}")
        except Exception as error:
            # Whatever a YAML file holds: Dagster wraps some of its errors and raises others as they are.
            if not (folder / "defs.yaml").is_file():
                raise
            problems = explain(error, folder)
            # The traceback matters for a fault of the code; what is wrong in a file is said in full.
            mistake = any(isinstance(cause, _MISTAKES) for cause in _causes(error))
            _LOGGER.error("defs/%s is not loaded:\n%s", folder.name, "\n".join(problems), exc_info=None if mistake else error)
            loaded.append(_error_definitions(folder.name, problems))
            continue
        keys = _asset_keys(definitions)
        if repeated := sorted(key for key in keys if key in owners):
            key = repeated[0]
            problems = [f"defs/{folder.name}: the asset {key.to_user_string()} is already defined in defs/{owners[key]}"]
            _LOGGER.error("defs/%s is not loaded:\n%s", folder.name, problems[0])
            loaded.append(_error_definitions(folder.name, problems))
            continue
        owners |= dict.fromkeys(keys, folder.name)
        loaded.append(definitions)
    return dg.Definitions.merge(*loaded)


def _is_source(path: Path) -> bool:
    """Whether `path` is a folder with definitions. Of a folder that was removed from the repository, its compiled bytecode stays."""
    hidden = path.name.startswith(("_", "."))
    return path.is_dir() and not hidden and any(entry.name != "__pycache__" for entry in path.iterdir())


def load_folder(module: str) -> dg.Definitions:
    """The definitions of one folder below `defs`. Raises what Dagster raises when a file in it is wrong; `explain` reads it."""
    package = importlib.import_module(module)
    # By its path: without one Dagster adds a JSON schema of every component type that is installed, 0.3 s a folder.
    definitions = ComponentTree.from_module(package, current_project().root).build_defs(Path(package.__path__[0]))
    # Definitions that each carry a component tree cannot be merged.
    return copy(definitions, component_tree=None)


def explain(error: BaseException, folder: Path) -> list[str]:
    """Each problem behind a failed load as `file:line: what is wrong, what is allowed`."""
    for cause in _causes(error):
        if isinstance(cause, ConfigurationError):
            return [f"{_place(folder, ('attributes', *cause.path))}: {cause}"]
        if isinstance(cause, ValidationError):
            return [_explain_field(problem, cause, folder) for problem in cause.errors()]
        if isinstance(cause, MarkedYAMLError):
            mark = cause.context_mark or cause.problem_mark
            line = f":{mark.line + 1}" if mark else ""
            return [f"defs/{folder.name}/defs.yaml{line}: {cause.problem}"]
    return [f"defs/{folder.name}/defs.yaml: {list(_causes(error))[-1]}"]


def _asset_keys(definitions: dg.Definitions) -> set[dg.AssetKey]:
    keys: set[dg.AssetKey] = set()
    for asset in definitions.assets or []:
        if isinstance(asset, dg.AssetsDefinition):
            keys |= asset.keys
        elif isinstance(asset, dg.AssetSpec):
            keys.add(asset.key)
    return keys


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _explain_field(problem: Any, error: ValidationError, folder: Path) -> str:
    # Dagster replaces the location by one string, "attributes.training.windw at <file>:<line>".
    location = ".".join(map(str, problem["loc"]))
    dotted, _, place = location.partition(" at ")
    keys = tuple(int(part) if part.isdigit() else part for part in dotted.split("."))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_fields(folder, keys)
        message = f"unknown field; {nearest(str(keys[-1]), allowed)}" if allowed else "unknown field"
    elif problem["type"] == "missing":
        message = "this field is required"
    shown = f"defs/{folder.name}/defs.yaml:{place.rpartition(':')[2]}" if place else _place(folder, keys)
    return f"{shown}: {dotted.removeprefix('attributes.')}: {message}"


def _place(folder: Path, keys: tuple[str | int, ...]) -> str:
    path = folder / "defs.yaml"
    tree = parse_yaml_with_source_position(path.read_text(), str(path)).source_position_tree
    position, _ = tree.lookup_closest_and_path(list(keys), None)
    return f"defs/{folder.name}/defs.yaml:{position.start.line}"


def _allowed_fields(folder: Path, keys: tuple[str | int, ...]) -> list[str]:
    """Fields of the YAML mapping that holds the last of `keys`."""
    path = folder / "defs.yaml"
    component = parse_yaml_with_source_position(path.read_text(), str(path)).value["type"]
    module, _, name = component.rpartition(".")
    model = getattr(importlib.import_module(module), name).get_model_cls()
    for key in keys[1:-1]:
        model = _inner_model(model, key)
        if model is None:
            return []
    return list(model.model_fields)


def _inner_model(model: type[BaseModel], key: str | int) -> type[BaseModel] | None:
    if isinstance(key, str) and key in model.model_fields:
        for candidate in _models(model.model_fields[key].annotation):
            return candidate
    # A key of a mapping or a position in a list: the model is the one of its values.
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


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
