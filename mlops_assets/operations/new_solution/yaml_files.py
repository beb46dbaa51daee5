"""The text of the two YAML files: a source of one table and a solution on it, with what is a default left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_SCHEMA = "# yaml-language-server: $schema=../defs.schema.json\n"
_WIDTH = 118


def source_text(
    *, owner: str, table: str, comment: str, fields: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]]
) -> str:
    """The `defs.yaml` of a source with one table: its `fields` that are not None or empty, and its columns, one a line."""
    lines = [
        f"{_SCHEMA}# {comment}",
        "type: mlops_assets.RawTables",
        "attributes:",
        f"  owners: [{_flow(owner)}]",
        "  tables:",
        f"    {_flow(table)}:",
        *(f"      {name}: {_flow(value)}" for name, value in fields.items() if value not in (None, [], {}, ())),
        "      columns:",
        *(f"        {_flow(name)}: {_flow(dict(column))}" for name, column in columns.items()),
    ]
    return "\n".join(lines) + "\n"


def solution_text(*, comment: str, attributes: Mapping[str, Any]) -> str:
    """The `defs.yaml` of a solution: one line an attribute, several where one would be too long."""
    lines = [f"{_SCHEMA}# {comment}", "type: mlops_assets.MLSolution", "attributes:"]
    for name, value in attributes.items():
        lines += _lines(name, value, "  ")
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, indent: str) -> list[str]:
    """`name: value` on one line, or what is in it on lines of their own."""
    line = f"{indent}{_flow(name)}: {_flow(value)}"
    if len(line) <= _WIDTH:
        return [line]
    if isinstance(value, Mapping):
        return [f"{indent}{_flow(name)}:", *(part for key, item in value.items() for part in _lines(key, item, indent + "  "))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(item, Mapping) for item in value):
            parts = [part for item in value for key, inner in item.items() for part in _lines(key, inner, indent + "    ")]
            # The mapping of an item begins beside its dash.
            return [f"{indent}{_flow(name)}:", *_dashed(parts, indent + "  ")]
        return _wrapped(f"{indent}{_flow(name)}: [", [_flow([item])[1:-1] for item in value], indent + "  ")
    return [line]


def _dashed(parts: list[str], indent: str) -> list[str]:
    return [f"{indent}- {parts[0].lstrip()}", *parts[1:]]


def _wrapped(begin: str, items: Sequence[str], indent: str) -> list[str]:
    lines, line = [], begin
    for number, item in enumerate(items):
        text = item + ("," if number < len(items) - 1 else "]")
        if len(line) + len(text) + 1 > _WIDTH and line.strip():
            lines.append(line.rstrip())
            line = indent + text
        else:
            line += text if line.endswith("[") or not line.strip() else f" {text}"
    return [*lines, line]


def _flow(value: Any) -> str:
    """`value` as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()
