"""Partitions of a solution's inputs that have not come, and the check `inputs_arrived` of predictions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from mlops_assets.core.check_rules import MOST_EXAMPLES, CheckRule, Evidence, PartitionCheckResult
from mlops_assets.core.keys import PREDICTIONS
from mlops_assets.stages.inputs import SolutionInputs

INPUTS_ARRIVED = CheckRule(
    name="inputs_arrived",
    description="Every input of the partition was there when it was predicted, and came before the wait for it was over.",
    blocking=False,
    evidence=Evidence(measured=("missing_inputs",), bound=("maximum_missing_inputs",), examples=("examples",)),
)


@dataclass(frozen=True)
class AssetPartition:
    """One partition of an asset."""

    key: dg.AssetKey
    partition: str

    def __str__(self) -> str:
        return f"{self.key.to_user_string()} of {self.partition}"


class Arrivals:
    """The partitions that were materialized, by Dagster's event log. Each asset is looked up once."""

    def __init__(self, instance: dg.DagsterInstance, graph: BaseAssetGraph):
        self._instance = instance
        self._graph = graph
        self._materialized: dict[dg.AssetKey, set[str]] = {}

    def materialized(self, key: dg.AssetKey) -> set[str]:
        """The partitions of an asset that are there."""
        if key not in self._materialized:
            self._materialized[key] = self._instance.get_materialized_partitions(key)
        return self._materialized[key]

    def missing(self, of: AssetPartition, parents: Iterable[dg.AssetKey]) -> list[AssetPartition]:
        """The partitions of `parents` that `of` is computed from and that are not there. An asset without partitions has none."""
        own, missing = self._graph.get(of.key).partitions_def, list[AssetPartition]()
        for parent in parents:
            definition = self._graph.get(parent).partitions_def
            mapping = self._graph.get_partition_mapping(of.key, parent)
            if own is None or definition is None or not isinstance(mapping, dg.TimeWindowPartitionMapping):
                continue
            needed = mapping.get_upstream_mapped_partitions_result_for_partitions(
                own.subset_with_partition_keys([of.partition]), own, definition
            )
            present = self.materialized(parent)
            missing += [
                AssetPartition(parent, name) for name in needed.partitions_subset.get_partition_keys() if name not in present
            ]
        return missing

    def origin(self, missing: AssetPartition) -> AssetPartition:
        """The partition furthest upstream that `missing` waits for."""
        further = self.missing(missing, sorted(self._graph.get(missing.key).parent_keys - {missing.key}))
        return self.origin(further[0]) if further else missing


def check_inputs_arrived(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, inputs: SolutionInputs, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether every feature view had its partition when each of the partitions `keys` was predicted."""
    arrivals, key = Arrivals(instance, graph), inputs.key(PREDICTIONS)
    results = []
    for name in keys:
        missing = arrivals.missing(AssetPartition(key, name), inputs.upstream_keys)
        words = f"predicted without {list_partitions(missing)}. Once it has come: mlops score {inputs.name} --list"
        results.append(arrival_result(inputs, name, missing, words if missing else None))
    return results


def arrival_result(
    inputs: SolutionInputs, partition: str, missing: Sequence[AssetPartition], description: str | None
) -> PartitionCheckResult:
    """The result of the check for one partition of predictions."""
    result = INPUTS_ARRIVED.result(
        inputs.key(PREDICTIONS),
        passed=not missing,
        metadata={
            "missing_inputs": len(missing),
            "maximum_missing_inputs": 0,
            "examples": dg.MetadataValue.json([str(each) for each in missing[:MOST_EXAMPLES]]),
        },
        description=description,
    )
    return PartitionCheckResult.from_result(result, partition)


def list_partitions(partitions: Iterable[AssetPartition]) -> str:
    """The partitions in words, each once."""
    return ", ".join(dict.fromkeys(map(str, partitions)))
