"""The dbt models that a change modifies, as dbt's own `state:modified` has them, and those that are computed from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.local.environment import process_environment
from mlops_assets.runs.dbt_processes import start_dbt

_KINDS = ("model", "seed")


@dataclass(frozen=True)
class DbtChanges:
    """Ids of the models and seeds of the working tree that are `modified` or new, and of all that are computed from these: `downstream`.

    `removed` are those that the working tree has no more.
    """

    modified: tuple[str, ...]
    downstream: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def built(self) -> tuple[str, ...]:
        """What is to be built to see the effect of the change."""
        return (*self.modified, *self.downstream)


def find_dbt_changes(settings: Settings, *, before: Path, after: Path, target: Path) -> DbtChanges:
    """Compare the parsed dbt projects in the folders `before` and `after`; dbt writes into `target` alone.

    Raises StackError with what dbt says when it cannot.
    """
    former, present = (json.loads((folder / "target" / "manifest.json").read_text()) for folder in (before, after))
    arguments = ["ls", "--select", "state:modified", "--state", str(before / "target"), "--output", "json"]
    arguments += ["--output-keys", "unique_id", "--resource-types", *_KINDS]
    environment = {
        **process_environment(settings),
        **dbt_profile_variables(),
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_QUIET": "true",
    }
    process = start_dbt(arguments, directory=after, environment=environment)
    with process.stdout:
        output = process.stdout.read().decode()
    if process.wait() != 0:
        raise StackError(f"dbt cannot compare {after} with {before}:\n{output.strip()}", remedy="mlops check names every fault.")
    listed = {json.loads(line)["unique_id"] for line in output.splitlines() if line.startswith("{")}
    modified = sorted(listed & present["nodes"].keys())
    return DbtChanges(tuple(modified), tuple(_downstream(present, modified)), tuple(sorted(_nodes(former) - _nodes(present))))


def _nodes(manifest: Mapping[str, Any]) -> set[str]:
    return {key for key, node in manifest["nodes"].items() if node["resource_type"] in _KINDS}


def _downstream(manifest: Mapping[str, Any], modified: list[str]) -> list[str]:
    reached, todo = set(modified), list(modified)
    while todo:
        for child in manifest["child_map"].get(todo.pop(), []):
            if child.partition(".")[0] in _KINDS and child not in reached:
                reached.add(child)
                todo.append(child)
    return sorted(reached - set(modified))
