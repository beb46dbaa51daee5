"""What is out of date by content: partitions whose inputs have other rows than when they were built. Launching goes to `backfill.py`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import DATA_VERSION_TAG, DataProvenance, extract_data_version_from_entry

from mlops_assets.core.keys import PREDICTIONS, STAGE_TAG

WHOLE = ""
"""Stands for the partition of an asset that has none."""
_MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION

Partitions = Mapping[dg.AssetKey, frozenset[str]]


def followed_levels(graph: BaseAssetGraph) -> list[list[dg.AssetKey]]:
    """The assets that follow their inputs, each level after those that it reads: those with an automation condition, but no predictions.

    What was predicted is history, and is scored again on demand alone. A raw table follows no asset, and training follows decisions.
    """
    levels = []
    for level in graph.toposorted_asset_keys_by_level:
        nodes = [graph.get(key) for key in sorted(level)]
        followed = [
            node.key
            for node in nodes
            if node.automation_condition and node.parent_keys and node.tags.get(STAGE_TAG) != PREDICTIONS
        ]
        if followed:
            levels.append(followed)
    return levels


@dataclass(frozen=True)
class Changes:
    """What the events of `instance` tell of the assets of `graph`, each asked for once."""

    instance: dg.DagsterInstance
    graph: BaseAssetGraph
    _newest: dict[dg.AssetKey, Mapping[str, dg.EventLogRecord]] = field(default_factory=dict)
    _versions: dict[dg.AssetKey, Mapping[str, tuple[int, str]]] = field(default_factory=dict)

    def outdated(self, keys: Iterable[dg.AssetKey]) -> dict[dg.AssetKey, frozenset[str]]:
        """The materialized partitions of `keys` that were built from other rows than their inputs have now. Others are left out."""
        found = {key: frozenset().union(*(self._outdated_by(key, parent) for parent in self._inputs(key))) for key in keys}
        return {key: partitions for key, partitions in found.items() if partitions}

    def touched(self, levels: Sequence[Sequence[dg.AssetKey]]) -> dict[dg.AssetKey, frozenset[str]]:
        """The outdated partitions, and all that may be so once these were built: what reads them, and so on."""
        touched: dict[dg.AssetKey, frozenset[str]] = {}
        for level in levels:
            outdated = self.outdated(level)
            for key in level:
                reached = [self._readers(key, parent, touched[parent]) for parent in self._inputs(key) if parent in touched]
                partitions = outdated.get(key, frozenset()).union(*reached)
                if partitions := partitions & self._records(key).keys():
                    touched[key] = partitions
        return touched

    def reach(self, key: dg.AssetKey, touched: Partitions) -> str:
        """How far a change of an input reaches forward in `key`, '' when it stays in its partition. "28 days on", for example."""
        offsets = [
            -mapping.start_offset
            for parent in self._inputs(key)
            if parent in touched and isinstance(mapping := self._mapping(key, parent), dg.TimeWindowPartitionMapping)
        ]
        furthest = max(offsets, default=0)
        definition = self.graph.get(key).partitions_def
        unit = {"DAILY": "day", "WEEKLY": "week", "MONTHLY": "month"}.get(
            str(getattr(getattr(definition, "schedule_type", None), "name", "")), "partition"
        )
        return f"{furthest} {unit}{'s' if furthest > 1 else ''} on" if furthest > 0 else ""

    def _inputs(self, key: dg.AssetKey) -> Iterator[dg.AssetKey]:
        """The parents whose content decides. A partition that reads all partitions of a parent, such as every training, follows none."""
        for parent in sorted(self.graph.get(key).parent_keys):
            is_whole = not self.graph.get(key).is_partitioned or not self.graph.get(parent).is_partitioned
            if parent != key and (is_whole or not isinstance(self._mapping(key, parent), dg.AllPartitionMapping)):
                yield parent

    def _mapping(self, key: dg.AssetKey, parent: dg.AssetKey) -> dg.PartitionMapping:
        return self.graph.get_partition_mapping(key, parent_asset_key=parent)

    def _outdated_by(self, key: dg.AssetKey, parent: dg.AssetKey) -> frozenset[str]:
        built, versions = self._records(key), self._current(parent)
        if not self.graph.get(parent).is_partitioned:
            return frozenset(name for name, record in built.items() if _differs(record, parent, versions.get(WHOLE)))
        outdated: set[str] = set()
        for seen, names in _by_position(built, parent).items():
            newer = {name: version for name, (position, version) in versions.items() if position > seen}
            if newer:
                former = self.instance.event_log_storage.get_latest_tags_by_partition(
                    parent, _MATERIALIZATION, [DATA_VERSION_TAG], asset_partitions=list(newer), before_cursor=seen + 1
                )
                changed = {name for name, version in newer.items() if former.get(name, {}).get(DATA_VERSION_TAG) != version}
                outdated |= names & self._readers(key, parent, changed)
        return frozenset(outdated)

    def _readers(self, key: dg.AssetKey, parent: dg.AssetKey, partitions: Iterable[str]) -> frozenset[str]:
        """The partitions of `key` that read `partitions` of `parent`."""
        names, child, read = set(partitions), self.graph.get(key).partitions_def, self.graph.get(parent).partitions_def
        if not names:
            return frozenset()
        if child is None or read is None:
            return frozenset(self._records(key))
        downstream = self._mapping(key, parent).get_downstream_partitions_for_partitions(
            read.subset_with_partition_keys(names), read, child
        )
        return frozenset(downstream.get_partition_keys())

    def _records(self, key: dg.AssetKey) -> Mapping[str, dg.EventLogRecord]:
        """The newest materialization of each partition."""
        if key not in self._newest:
            positions = self._positions(key)
            wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(positions.values()))
            records = self.instance.fetch_materializations(wanted, limit=len(positions)).records if positions else []
            self._newest[key] = {record.partition_key or WHOLE: record for record in records}
        return self._newest[key]

    def _positions(self, key: dg.AssetKey) -> Mapping[str, int]:
        if self.graph.get(key).is_partitioned:
            definition = self.graph.get(key).partitions_def
            positions = self.instance.event_log_storage.get_latest_storage_id_by_partition(key, _MATERIALIZATION)
            return {name: position for name, position in positions.items() if definition and definition.has_partition_key(name)}
        newest = self.instance.fetch_materializations(key, limit=1).records
        return {record.partition_key or WHOLE: record.storage_id for record in newest}

    def _current(self, key: dg.AssetKey) -> Mapping[str, tuple[int, str]]:
        """Position in the event log and data version of the newest materialization of each partition."""
        if key not in self._versions:
            if self.graph.get(key).is_partitioned:
                tags = self.instance.event_log_storage.get_latest_tags_by_partition(key, _MATERIALIZATION, [DATA_VERSION_TAG])
                versions = {name: found[DATA_VERSION_TAG] for name, found in tags.items()}
                self._versions[key] = {name: (at, versions.get(name, "")) for name, at in self._positions(key).items()}
            else:
                self._versions[key] = {name: (record.storage_id, _version(record)) for name, record in self._records(key).items()}
        return self._versions[key]


def _version(record: dg.EventLogRecord) -> str:
    version = extract_data_version_from_entry(record.event_log_entry)
    return version.value if version else ""


def _provenance(record: dg.EventLogRecord) -> DataProvenance | None:
    return DataProvenance.from_tags(record.event_log_entry.tags or {})


def _differs(record: dg.EventLogRecord, parent: dg.AssetKey, current: tuple[int, str] | None) -> bool:
    """Whether the parent, which is whole, has another version than the one that `record` was built from."""
    if current is None:
        return False
    position, version = current
    provenance = _provenance(record)
    if provenance is None or parent not in provenance.input_data_versions:
        return position > record.storage_id
    return provenance.input_data_versions[parent].value != version


def _by_position(built: Mapping[str, dg.EventLogRecord], parent: dg.AssetKey) -> Mapping[int, set[str]]:
    """The partitions by how far the events of `parent` went when they were built: for those of one run the same."""
    seen: dict[int, set[str]] = defaultdict(set)
    for name, record in built.items():
        provenance = _provenance(record)
        pointer = provenance.input_storage_ids.get(parent, record.storage_id) if provenance else record.storage_id
        seen[pointer or 0].add(name)
    return seen
