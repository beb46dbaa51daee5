"""Data versions of partitions: each materialization of a range run names the content of its own partition."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import dagster as dg

# Dagster has no public names for the tags of a version, for the mark of an output that is not recorded again, for the events of an output,
# and for the metadata that a step gathers.
from dagster._core.definitions.assets.definition.asset_spec import AssetExecutionType
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG, DATA_VERSION_TAG
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata
from dagster._core.execution.context.metadata_logging import AssetMetadataHandle, OutputMetadataAccumulator, OutputMetadataHandle
from dagster._core.execution.plan.execute_step import _get_output_asset_events

PARTITION_FINGERPRINT = "partition_fingerprint"
"""Metadata of one partition's materialization: the fingerprint of its rows, which is its data version."""


def add_partition_metadata(
    context: dg.AssetExecutionContext, asset_key: dg.AssetKey, metadata: Mapping[str, Mapping[str, Any]]
) -> None:
    """Attach to the materialization of each partition of this run its own `metadata`, by partition key.

    As `context.add_asset_metadata` does for one partition, which looks through all that the step has gathered: a range run of 12 tables and
    a year of days would do so four thousand times.
    """
    step = context.op_execution_context.get_step_execution_context()
    gathered = step._metadata_accumulator
    added: dict[OutputMetadataHandle | AssetMetadataHandle, Mapping[str, Any]] = {
        AssetMetadataHandle(asset_key=asset_key, partition_key=partition): {
            **gathered.get_asset_metadata(asset_key, partition),
            **of_partition,
        }
        for partition, of_partition in metadata.items()
    }
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata={**gathered.per_output_metadata, **added})


def with_partition_versions(event: dg.MaterializeResult | dg.Output) -> Iterator[Any]:
    """Yield the events that take the place of `event`, the output of an asset.

    Dagster gives all partitions of a run the data version of the output. Where the step recorded a fingerprint of each partition, the
    materializations are made here, with these as versions, and Dagster is told to record no others. All else stays Dagster's own.
    """
    context = dg.AssetExecutionContext.get()
    step = context.op_execution_context.get_step_execution_context()
    if isinstance(event, dg.MaterializeResult):
        key = event.asset_key or context.asset_key
        name = context.assets_def.get_output_name_for_asset_key(key)
    else:
        name = event.output_name
        key = context.assets_def.keys_by_output_name.get(name)  # that of a check is of no asset
    keys = context.partition_keys if key and step.has_asset_partitions_for_output(name) else []
    versions = {partition: (step.get_asset_metadata(key, partition) or {}).get(PARTITION_FINGERPRINT) for partition in keys}
    if not versions or None in versions.values():
        yield event
        return
    output = dg.Output(None, output_name=name, metadata=event.metadata, tags=event.tags)
    materializations = list(
        _get_output_asset_events(
            key, keys, output, step.op_def.output_def_named(name), {}, step, AssetExecutionType.MATERIALIZATION
        )
    )
    batch = str(uuid4())
    for number, materialization in enumerate(materializations, start=1):
        assert isinstance(materialization, dg.AssetMaterialization)
        version = str(versions[materialization.partition])
        tags = {**(materialization.tags or {}), DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
        yield DagsterEvent.asset_materialization(
            step, materialization._replace(tags=tags), DagsterEventBatchMetadata(batch, number == len(materializations))
        )
    # What the same step builds on it next compares this one with the newest that is recorded.
    step.set_data_version(key, dg.DataVersion(version))
    unrecorded = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
    if isinstance(event, dg.MaterializeResult):
        yield event._replace(metadata=unrecorded)
    else:
        yield dg.Output(event.value, output_name=name, metadata=unrecorded)
