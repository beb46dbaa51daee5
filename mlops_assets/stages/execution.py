"""Parts of every asset's step: retries, the partitions of a run, the moment of loading, metadata of a table."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core.keys import SEGMENT, TRAINING_DATE
from mlops_assets.lake.lake import WriteResult
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.schema_evolution import ColumnChange
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.stages.partition_versions import PARTITION_FINGERPRINT, add_partition_metadata

RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For transient faults: a server restarting, a commit conflict. Faults of the data raise `permanent_failure`."""


def permanent_failure(message: str) -> dg.Failure:
    """A failure that trying again cannot mend."""
    return dg.Failure(description=message, allow_retries=False)


def partition_range(context: dg.AssetExecutionContext, column: str) -> PartitionRange:
    """The half-open range of dates of the partitions in this run."""
    window = context.partition_time_window
    return PartitionRange(column=column, start=window.start.date(), end=window.end.date())


def model_of_run(context: dg.AssetExecutionContext, inputs: SolutionInputs) -> tuple[date, SolutionInputs]:
    """The training date of this run, and `inputs` with its segment if they are those of segments. Raises Failure for several."""
    if not inputs.by_segment:
        return partition_date(context), inputs
    if len(context.partition_keys) != 1:
        raise permanent_failure(f"{context.asset_key.to_user_string()} fits one model a partition: choose one.")
    key = context.partition_key
    assert isinstance(key, dg.MultiPartitionKey)
    dimensions = key.keys_by_dimension
    return date.fromisoformat(dimensions[TRAINING_DATE]), replace(inputs, segment=dimensions[SEGMENT])


def partition_date(context: dg.AssetExecutionContext) -> date:
    """The date that the single partition key of this run names. Raises Failure when the run has a range of partitions."""
    keys = context.partition_key_range
    if keys.start != keys.end:
        raise permanent_failure(
            f"{context.asset_key.to_user_string()} fits one model a partition: choose one partition, not {keys.start} to {keys.end}."
        )
    return date.fromisoformat(keys.start)


def run_time(context: dg.AssetExecutionContext) -> datetime:
    """Return the time at which this run was created, in UTC: the load time of the rows it writes, the same for a retried step."""
    record = context.instance.get_run_record_by_id(context.run.run_id)
    if record is None:
        raise permanent_failure(f"The instance holds no record of run {context.run.run_id}.")
    return record.create_timestamp


def require_inputs(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs) -> None:
    """Raise Failure unless the tables of the spine and of every feature view are in the lake."""
    tables = [inputs.spine.table, *(chosen.view.model.table for chosen in inputs.views)]
    if missing := [table for table in tables if not table_exists(connection, table)]:
        raise permanent_failure(f"The lake lacks {', '.join(missing)}: materialize {', '.join(missing).replace('.', '/')} first.")


def table_schema(connection: duckdb.DuckDBPyConnection, table: str, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """The columns of a lake table for Dagster's column view."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=name, type=data_type, description=descriptions.get(name))
            for name, data_type in column_types(connection, table).items()
        ]
    )


def rows_by_partition_key(keys: Iterable[str], rows_by_date: Mapping[str, int]) -> dict[str, int]:
    """The rows of each partition, whose key is its first day, of rows that are counted by their date; of sums of hashes the same.

    Rows without a date, and those before the first partition, are of none.
    """
    starts = sorted(keys)
    rows = dict.fromkeys(starts, 0)
    for day, count in rows_by_date.items():
        if day and (position := bisect_right(starts, day)):
            rows[starts[position - 1]] += count
    return rows


def record_partitions(
    context: dg.AssetExecutionContext,
    rows_by_date: Mapping[str, int],
    hashes_by_date: Mapping[str, int],
    *,
    asset_key: dg.AssetKey | None = None,
) -> None:
    """Attach row count and fingerprint of each partition to its materialization, of rows that are counted and hashed by their date.

    The fingerprint becomes the data version of the partition.
    """
    fingerprints = partition_versions(context.partition_keys, hashes_by_date)
    rows_by_key = rows_by_partition_key(context.partition_keys, rows_by_date)
    metadata = {
        key: {"dagster/partition_row_count": rows, PARTITION_FINGERPRINT: fingerprints[key]} for key, rows in rows_by_key.items()
    }
    add_partition_metadata(context, asset_key or context.asset_key, metadata)


def partition_versions(keys: Iterable[str], hashes_by_date: Mapping[str, int]) -> dict[str, str]:
    """The fingerprint of each partition, of rows whose hashes are summed by their date."""
    return {key: f"{total % 2**64:016x}" for key, total in rows_by_partition_key(keys, hashes_by_date).items()}


def record_range_metadata(context: dg.AssetExecutionContext, metadata: Mapping[str, Any]) -> None:
    """Attach what describes all partitions of this run together, such as plots, to the last of them: Dagster stores it for each."""
    context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=context.partition_keys[-1])


def schema_change_metadata(table: str, changes: Sequence[ColumnChange]) -> dict[str, dg.MetadataValue]:
    """Metadata of columns that a write added or widened, which is also a line in the log of the run; nothing without such a change."""
    if not changes:
        return {}
    dg.get_dagster_logger().info(f"The columns of {table} changed: {', '.join(map(str, changes))}.")
    return {"schema_changes": dg.MetadataValue.json([str(change) for change in changes])}


def written_metadata(written: WriteResult) -> dict[str, dg.MetadataValue]:
    """Metadata every write to the lake leaves."""
    return {
        **schema_change_metadata(written.table, written.schema_changes),
        "dagster/table_name": dg.MetadataValue.text(f"lake.{written.table}"),
        "dagster/row_count": dg.MetadataValue.int(written.rows),
        "lake_snapshot": dg.MetadataValue.int(written.snapshot),
        "changed": dg.MetadataValue.bool(written.changed),
        "fingerprint": dg.MetadataValue.text(written.fingerprint),
    }
