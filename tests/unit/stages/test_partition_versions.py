"""Metadata of each partition of a run, in a real run of several tables and partitions."""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.context.metadata_logging import OutputMetadataAccumulator

from mlops_assets.stages.execution import record_partitions
from mlops_assets.stages.faults import step

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-31")
TABLES = ("orders", "returns")


def test_each_partition_of_each_table_has_its_own_content_beside_what_was_attached_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered: list[int] = []
    make = OutputMetadataAccumulator.__new__

    def counting(*arguments: Any, **named: Any) -> Any:
        gathered.append(1)
        return make(*arguments, **named)

    @dg.multi_asset(
        specs=[dg.AssetSpec(name, partitions_def=DAYS) for name in TABLES],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    @step
    def tables(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        keys = list(context.partition_keys)
        monkeypatch.setattr(OutputMetadataAccumulator, "__new__", counting)
        for number, name in enumerate(TABLES):
            key = dg.AssetKey(name)
            context.add_asset_metadata({"shown": "before"}, asset_key=key, partition_key=keys[0])
            rows = {day: place + 100 * number for place, day in enumerate(keys)}
            record_partitions(context, rows, {day: 2**63 + count for day, count in rows.items()}, asset_key=key)
            yield dg.MaterializeResult(asset_key=key)

    instance = dg.DagsterInstance.ephemeral()
    tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-30"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = dg.materialize([tables], instance=instance, tags=tags)
    # Once a table, not once a partition: each looks through all that is there.
    assert len(gathered) <= 3 * len(TABLES)
    for number, name in enumerate(TABLES):
        events = result.asset_materializations_for_node("tables")
        made = {each.partition: each.metadata for each in events if each.asset_key == dg.AssetKey(name)}
        assert list(made) == DAYS.get_partition_keys()
        assert [metadata["dagster/partition_row_count"].value for metadata in made.values()] == [
            place + 100 * number for place in range(30)
        ]
        assert len({metadata["partition_fingerprint"].value for metadata in made.values()}) == 30
        assert [day for day, metadata in made.items() if "shown" in metadata] == ["2024-01-01"]
