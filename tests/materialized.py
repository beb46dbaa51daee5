"""Materializations that a run made, with metadata of a test's own. No tests here."""

from collections.abc import Mapping
from typing import Any

import dagster as dg


def materialize_in_run(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str, metadata: Mapping[str, Any]) -> None:
    """Record in `instance` that a run materialized a partition of the asset."""

    @dg.asset(key=key, partitions_def=dg.StaticPartitionsDefinition([partition]))
    def made() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=metadata)

    assert dg.materialize([made], instance=instance, partition_key=partition).success
