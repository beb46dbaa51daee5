"""A compiled dbt model becomes files of a person: moved to `models/`, its declaration taken out of the YAML. Its asset stays the same."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.features.generated.dbt_model import GeneratedModel
from mlops_assets.features.generated.project_files import generated_models, write_generated_models
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.yaml_loader import ProjectLoader

_VIEWS = "feature_views"


@dataclass(frozen=True)
class Ejection:
    """What was done: the files in `models/`, and the file that declared the model."""

    files: tuple[Path, ...]
    declaration: Path


@dataclass(frozen=True)
class _Entry:
    """A key of a YAML mapping with its value, and whether the mapping is written on one line."""

    key: Any
    value: Any
    is_inline: bool


def eject(name: str, project: Project) -> Ejection:
    """Move the compiled model `name` to `models/` of the dbt project and edit the YAML that declares it.

    Raises StackError, and changes nothing, when there is no such model, when files are in the way, or when the YAML is written in a way
    that cannot be edited.
    """
    models = {model.name: model for model in generated_models(project)}
    if name not in models:
        raise StackError(
            f"No model {name!r} is compiled from YAML.", remedy=f"{nearest(name, list(models)) if models else 'None is.'}"
        )
    model = models[name]
    contents = {project.dbt_project / "models" / path: text.removeprefix(model.notice()) for path, text in model.files().items()}
    if present := [path for path in contents if path.exists()]:
        raise StackError(f"{present[0]} exists already.", remedy="Move it away, then try again.")
    declaration = project.root / model.origin
    edited = _without_declaration(declaration.read_text(), model)
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    declaration.write_text(edited)
    write_generated_models(project)
    return Ejection(files=tuple(contents), declaration=declaration)


def _without_declaration(text: str, model: GeneratedModel) -> str:
    """The YAML without what declares the `model`, otherwise as it was. Raises StackError when the edit would change anything else."""
    documents = list(yaml.safe_load_all(text))
    expected = copy.deepcopy(documents)
    for number, document in enumerate(documents):
        attributes = document.get("attributes", {}) if isinstance(document, dict) else {}
        if model.name in (attributes.get(_VIEWS) or {}):
            is_only = len(attributes[_VIEWS]) == 1
            path = ["attributes", _VIEWS] if is_only else ["attributes", _VIEWS, model.name]
            if is_only:
                del expected[number]["attributes"][_VIEWS]
            else:
                del expected[number]["attributes"][_VIEWS][model.name]
            return _verified(_removed(text, number, path), expected, model)
        spine = attributes.get("spine") or {}
        if "table" in spine and attributes.get("name") == model.document["config"]["schema"]:
            changed = expected[number]["attributes"]["spine"]
            del changed["table"]
            changed["model"] = model.name
            edited = _renamed(text, number, ["attributes", "spine", "table"], f"model: {model.name}")
            if changed.pop("expressions", None) is not None:
                edited = _removed(edited, number, ["attributes", "spine", "expressions"])
            return _verified(edited, expected, model)
    raise StackError(f"{model.origin} does not declare {model.name}.", remedy="mlops prepare")


def _verified(edited: str, expected: Sequence[Any], model: GeneratedModel) -> str:
    try:
        found = list(yaml.load_all(edited, Loader=ProjectLoader))
    except yaml.YAMLError:
        found = []
    if found != expected:
        raise StackError(
            f"{model.origin} is written in a way that cannot be edited without changing more than {model.name}.",
            remedy="Write its `feature_views` or `spine` as a block, an entry a line, then try again.",
        )
    return edited


def _entry(text: str, document: int, path: Sequence[str]) -> _Entry:
    """The entry at `path` of a YAML document."""
    node: Any = list(yaml.compose_all(text, Loader=yaml.SafeLoader))[document]
    for name in path:
        mapping = node
        key, node = next((key, value) for key, value in mapping.value if key.value == name)
    return _Entry(key=key, value=node, is_inline=bool(mapping.flow_style))


def _renamed(text: str, document: int, path: Sequence[str], replacement: str) -> str:
    entry = _entry(text, document, path)
    return text[: entry.key.start_mark.index] + replacement + text[entry.value.end_mark.index :]


def _removed(text: str, document: int, path: Sequence[str]) -> str:
    entry = _entry(text, document, path)
    if entry.is_inline:
        before, after = text[: entry.key.start_mark.index], text[entry.value.end_mark.index :]
        if after.lstrip().startswith(","):
            return before + after.lstrip()[1:].lstrip()
        return before.rstrip().removesuffix(",") + after
    lines = text.splitlines(keepends=True)
    start, indent = entry.key.start_mark.line, entry.key.start_mark.column
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return "".join([*lines[:start], *lines[end:]])
