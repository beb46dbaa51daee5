"""Differences of the definitions and the YAML of two revisions: what was added, removed or changed, and in which respect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlops_assets.operations.review.revision import Dump
from mlops_assets.schema.solution import Solution

CONFIGURATION_ERROR = "configuration_error/"
"""Prefix of the asset that stands for a folder of `defs/` that cannot be loaded."""

_LONG_TEXTS = ("description", "code_version")
"""Values of which a reader learns no more than that they changed."""


@dataclass(frozen=True)
class DefinitionChange:
    """One asset, check, job, schedule, sensor or solution that differs; `details` are the respects in which it changed."""

    kind: str
    name: str
    change: Literal["added", "removed", "changed"]
    details: tuple[str, ...] = ()


def compare_dumps(before: Dump, after: Dump) -> list[DefinitionChange]:
    """Return the definitions that differ, by kind and name. Checks come and go with their asset, and are not listed then."""
    moved = before["asset"].keys() ^ after["asset"].keys()
    changes = [change for kind in after for change in _compare(kind, before.get(kind, {}), after[kind])]
    return [change for change in changes if change.kind != "check" or _asset_of(change.name) not in moved]


def compare_solutions(before: Mapping[str, Solution], after: Mapping[str, Solution]) -> list[DefinitionChange]:
    """Return the solutions whose YAML differs, field by field."""
    plain = [{name: _fields(solution) for name, solution in solutions.items()} for solutions in (before, after)]
    return list(_compare("solution", *plain))


def removed_gates(before: Dump, after: Dump) -> list[str]:
    """Return a line for each blocking check of an asset that stays, which is gone or blocks no more."""
    lines = []
    for name, check in before["check"].items():
        if not check["blocking"] or _asset_of(name) not in after["asset"]:
            continue
        if name not in after["check"]:
            lines.append(f"{name} is gone")
        elif not after["check"][name]["blocking"]:
            lines.append(f"{name} blocks no more")
    return lines


def load_errors(before: Dump, after: Dump) -> list[str]:
    """Return the folders of `defs/` that can no longer be loaded."""
    names = [name for name in after["asset"] if name.startswith(CONFIGURATION_ERROR) and name not in before["asset"]]
    return [f"defs/{name.removeprefix(CONFIGURATION_ERROR)} cannot be loaded: mlops check" for name in names]


def _asset_of(check: str) -> str:
    return check.partition(": ")[0]


def _compare(
    kind: str, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Iterator[DefinitionChange]:
    for name in sorted({*before, *after}):
        if name not in before:
            yield DefinitionChange(kind, name, "added")
        elif name not in after:
            yield DefinitionChange(kind, name, "removed")
        elif details := tuple(_details(before[name], after[name])):
            yield DefinitionChange(kind, name, "changed", details)


def _details(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for field in dict.fromkeys([*before, *after]):
        former, present = before.get(field), after.get(field)
        if former == present:
            continue
        if field in _LONG_TEXTS:
            yield field
        elif isinstance(former, Mapping) and isinstance(present, Mapping):
            yield f"{field}: {', '.join(_entries(former, present))}"
        elif isinstance(former, list) and isinstance(present, list):
            added = [f"+ {entry}" for entry in present if entry not in former]
            gone = [f"- {entry}" for entry in former if entry not in present]
            yield f"{field}: {', '.join([*added, *gone]) or 'another order'}"
        else:
            yield f"{field}: {_shown(former)} → {_shown(present)}"


def _entries(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in before:
            yield f"+ {name}"
        elif name not in after:
            yield f"- {name}"
        elif before[name] != after[name]:
            yield f"{name} {_shown(before[name])} → {_shown(after[name])}"


def _fields(solution: Solution) -> dict[str, Any]:
    return dict(_flattened(solution.model_dump(mode="json"), ""))


def _flattened(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists of mappings, by their dotted path."""
    if isinstance(value, Mapping) and value:
        for name, entry in value.items():
            yield from _flattened(entry, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        for number, entry in enumerate(value):
            label = entry.get("view") or entry.get("type") or number if isinstance(entry, Mapping) else number
            yield from _flattened(entry, f"{path}[{label}]")
    else:
        yield path, value


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
