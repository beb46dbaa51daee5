"""State of an asset, as the Dagster webserver answers the query `ASSETS` of `dagster_queries.py`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Spelled as in `keys.py`, which imports Dagster: too slow for a status command.
SOLUTION_TAG, STAGE_TAG = "mlops/solution", "mlops/stage"

_IMPLICIT = "__"
"""How the names of jobs begin that Dagster makes by itself."""


@dataclass(frozen=True)
class AssetState:
    """One asset: key (`a/b`), dependencies, the ops that make it, the jobs that run it, tags, materialized ranges, failing checks."""

    key: str
    description: str
    partitioned: bool
    executable: bool
    tags: dict[str, str]
    dependencies: tuple[str, ...]
    operations: tuple[str, ...]
    jobs: tuple[str, ...]
    location: tuple[str, str]
    ranges: tuple[tuple[str, str], ...]
    materialized: bool
    failing_checks: tuple[str, ...]
    warning_checks: tuple[str, ...]

    @property
    def in_solution(self) -> bool:
        """Whether the asset is a stage of a solution."""
        return SOLUTION_TAG in self.tags

    def covers(self, first: str | None, last: str | None) -> bool:
        """Whether every partition from `first` to `last` (an unpartitioned asset: it) is materialized."""
        if not self.partitioned or first is None or last is None:
            return self.materialized
        return any(start <= first and last <= end for start, end in self.ranges)


def ancestors(assets: Mapping[str, AssetState], keys: Sequence[str]) -> set[str]:
    """The executable assets among `keys` and all that they depend on."""
    keys_with_ancestors: set[str] = set()
    waiting = list(keys)
    while waiting:
        current = waiting.pop()
        if current not in keys_with_ancestors and current in assets and assets[current].executable:
            keys_with_ancestors.add(current)
            waiting += assets[current].dependencies
    return keys_with_ancestors


def asset_state(node: dict[str, Any], severity: Callable[[dict[str, list[str]], str, str], str]) -> AssetState:
    """Return the state of one asset, a node of the answer to a query of assets.

    A blocking check of partitions is failing for each that it stops, a warning one when its newest result is one. `severity` looks up
    that of a failed result, by asset key, check and partition.
    """
    failed: dict[str, str] = {}
    not_evaluated = []
    for check in node.get("assetChecksOrError", {}).get("checks", []):
        execution = check["executionForLatestMaterialization"]
        if check["blocking"] and check["partitionStatuses"]:
            ranges = [
                partition_range
                for partition_range in check["partitionStatuses"]["ranges"]
                if partition_range["status"] == "FAILED"
            ]
            for first, last in ((partition_range["startKey"], partition_range["endKey"]) for partition_range in ranges):
                partitions = first if first == last else f"{first} to {last}"
                failed[f"{check['name']} ({partitions})"] = severity(node["assetKey"], check["name"], last)
        elif execution and execution["status"] == "FAILED":
            failed[check["name"]] = execution["evaluation"]["severity"]
        elif execution and execution["status"] == "EXECUTION_FAILED":
            # A check whose run ended before it, because of another one that blocked, says nothing against its asset.
            not_evaluated.append(f"{check['name']} (not evaluated)")
    return AssetState(
        key="/".join(node["assetKey"]["path"]),
        description=node["description"] or "",
        partitioned=node["isPartitioned"],
        executable=node["isExecutable"],
        tags={tag["key"]: tag["value"] for tag in node["tags"]},
        dependencies=tuple("/".join(key["path"]) for key in node["dependencyKeys"]),
        operations=tuple(node["opNames"]),
        jobs=tuple(name for name in node["jobNames"] if not name.startswith(_IMPLICIT)),
        location=(node["repository"]["name"], node["repository"]["location"]["name"]),
        ranges=tuple(
            (partition_range["startKey"], partition_range["endKey"])
            for partition_range in (node["assetPartitionStatuses"] or {}).get("ranges", [])
            if partition_range["status"] == "MATERIALIZED"
        ),
        materialized=bool(node["assetMaterializations"]),
        failing_checks=tuple(name for name, severity in failed.items() if severity == "ERROR"),
        warning_checks=tuple(sorted([*(name for name, severity in failed.items() if severity == "WARN"), *not_evaluated])),
    )
