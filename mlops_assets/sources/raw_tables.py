"""Raw tables: rows of a source as they came, typed, in the lake; what does not parse is kept apart with the reason."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.errors import DagsterAssetCheckFailedError
from pydantic import Field

from mlops_assets.core.conditions import ON_MISSING_PARTITION
from mlops_assets.core.freshness import cadence_freshness, freshness_policy
from mlops_assets.core.keys import RAW_SCHEMA, group_name, table_key
from mlops_assets.core.partitions import build_partitions
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake, WriteResult
from mlops_assets.lake.sql import sql_moment
from mlops_assets.lake.tables import LakeError
from mlops_assets.schema.source import RawTable, Source
from mlops_assets.sources.delivery_checks import as_accepted, delivery_rules, evaluate_delivery, is_blocking, with_metadata
from mlops_assets.sources.files import require_allowed_files
from mlops_assets.sources.raw_delivery import REJECTS_SCHEMA, Delivery
from mlops_assets.sources.reader import DateRange, SourceError, parse
from mlops_assets.sources.table_checks import UNPARTITIONED
from mlops_assets.stages.execution import (
    RETRIES,
    partition_range,
    partition_versions,
    permanent_failure,
    record_partitions,
    rows_by_partition_key,
    run_time,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.faults import step
from mlops_assets.stages.partition_versions import PARTITION_FINGERPRINT

_AUDIT_DESCRIPTIONS = {
    "_source": "File or database the row came from.",
    "_loaded_at": "When the run that loaded the row was created, UTC.",
}


class RawTableConfig(dg.Config):
    """Run configuration. `files`: what to read in place of the files in the YAML, for this run alone, such as a corrected delivery.

    `accept`: why this delivery is taken although blocking checks fail; they become warnings that hold the reason.
    """

    files: list[str] | None = None
    accept: str | None = Field(default=None, min_length=1)

    def read(self, table: RawTable, directory: Path) -> RawTable:
        """`table` as this run reads it. Raises Failure for files that a run may not name, and for a table that comes from a query."""
        if self.files is None:
            return table
        if table.files is None:
            raise permanent_failure("files: this table is read by a query, not from files.")
        deliveries = Settings.from_environment().deliveries_directory
        try:
            require_allowed_files(self.files, own=table.files, directory=directory, deliveries=deliveries)
        except SourceError as error:
            raise permanent_failure(f"files: {error}") from error
        return table.model_copy(update={"files": self.files})


def build_raw_assets(source: Source, *, directory: Path, origin: Mapping[str, Any] | None = None) -> list[dg.AssetsDefinition]:
    """One asset for each table of `source`, with its checks and the metadata `origin`.

    Relative file names start at `directory`, whose name is the source's.
    """
    return [
        _build_raw_asset(name, table, source=source, directory=directory, origin=origin or {})
        for name, table in source.tables.items()
    ]


def raw_key(table: str) -> dg.AssetKey:
    """Asset key of a raw table."""
    return table_key(f"{RAW_SCHEMA}.{table}")


def raw_partitions(table: RawTable) -> dg.TimeWindowPartitionsDefinition | None:
    """Partitions of a raw table, None of one that is loaded as a whole."""
    partitions = table.partitions
    return build_partitions(partitions.start, partitions.end, partitions.cadence) if partitions else None


def _build_raw_asset(
    name: str, table: RawTable, *, source: Source, directory: Path, origin: Mapping[str, Any]
) -> dg.AssetsDefinition:
    key = raw_key(name)
    partitions = table.partitions
    keys = raw_partitions(table)
    # What a schedule loads needs no condition that would load it too.
    arrives = partitions is not None and partitions.end is None and source.schedule is None

    @dg.asset(
        key=key,
        description=table.description,
        metadata=origin,
        owners=source.owners,
        group_name=group_name(directory.name, RAW_SCHEMA),
        kinds={(table.format or "sql").rpartition(":")[2].lower(), "duckdb"},
        partitions_def=keys,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[rule.partitioned_spec(key, keys) for rule in delivery_rules(table)],
        freshness_policy=_freshness(table),
        automation_condition=ON_MISSING_PARTITION if arrives else None,
        code_version=hashlib.sha256(table.model_dump_json().encode()).hexdigest()[:16],
        retry_policy=RETRIES,
    )
    @step
    def raw_table(context: dg.AssetExecutionContext, config: RawTableConfig, lake: dg.ResourceParam[Lake]) -> Iterator[Any]:
        replaced = partition_range(context, partitions.column) if partitions else None
        window = DateRange(column=replaced.column, start=replaced.start, end=replaced.end) if replaced else None
        with lake.connect(read_only=False) as connection:
            try:
                with parse(
                    connection, config.read(table, directory), directory=directory, window=window, own_files=table.files
                ) as unused:
                    delivery = Delivery(
                        connection=connection,
                        lake=lake,
                        name=name,
                        table=table,
                        replaced=replaced,
                        keys=context.partition_keys if replaced else [UNPARTITIONED],
                        run_id=context.run.run_id,
                        loaded_at=sql_moment(run_time(context)),
                    )
                    yield from _take(context, config, delivery, unused=unused)
            except (SourceError, LakeError) as error:
                raise permanent_failure(str(error)) from error
            # What else DuckDB raises, such as a conflict of commits or a catalog that is away, may pass the next time.
            except (duckdb.DataError, duckdb.InvalidInputException) as error:
                # Its text quotes the value.
                kind = type(error).__name__.removesuffix("Exception")
                raise permanent_failure(
                    f"raw.{name} cannot be written: a value does not fit ({kind}). Compare the types of its columns with the delivery."
                ) from None
            except (duckdb.ProgrammingError, duckdb.NotSupportedError) as error:
                raise permanent_failure(f"raw.{name} cannot be written: {error}") from error

    return raw_table


def _freshness(table: RawTable) -> dg.FreshnessPolicy | None:
    if table.partitions is None:
        return None
    return freshness_policy(table.partitions.freshness) or cadence_freshness(table.partitions.cadence)


def _take(
    context: dg.AssetExecutionContext, config: RawTableConfig, delivery: Delivery, *, unused: Sequence[str]
) -> Iterator[Any]:
    """Check the staged delivery and write the partitions that pass.

    Those that a check blocks are set aside, and are not materialized. Raises Failure for them, after what was written is recorded.
    """
    delivery.require_known_columns()
    by_partition = evaluate_delivery(delivery)
    delivery.write_rejects()
    failing = {name: [result for result in results if is_blocking(result)] for name, results in by_partition.items()}
    refused = {name: results for name, results in failing.items() if results}
    results = [result for part in by_partition.values() for result in part]
    if not refused or config.accept is not None:
        written, metadata = _write(delivery, (), unused=unused)
        version = None if delivery.replaced else dg.DataVersion(written.fingerprint)
        if delivery.replaced:
            record_partitions(context, written.rows_by_partition, written.hashes_by_partition)
        if refused and config.accept is not None:
            results = [as_accepted(result, config.accept) if is_blocking(result) else result for result in results]
            metadata |= {"accepted_because": dg.MetadataValue.text(config.accept)}
        yield dg.MaterializeResult(metadata=metadata, check_results=results, data_version=version)
        return
    if len(refused) < len(by_partition):
        yield from _materialize_others(context, delivery, list(refused), unused=unused)
    message = delivery.set_aside(refused)
    for check_result in results:
        yield with_metadata(check_result, delivery=message) if is_blocking(check_result) else check_result
    # The cause is what Dagster raises for a failed check, by which it is told apart from a fault of the platform.
    names = ", ".join(dict.fromkeys(str(result.check_name) for part in refused.values() for result in part))
    cause = DagsterAssetCheckFailedError(f"{context.asset_key.to_user_string()}: {names}")
    raise permanent_failure(message) from cause


def _materialize_others(
    context: dg.AssetExecutionContext, delivery: Delivery, refused: Sequence[str], *, unused: Sequence[str]
) -> Iterator[dg.AssetMaterialization]:
    """Write the partitions of the delivery but those `refused`, and yield a materialization of each.

    A `MaterializeResult` would be one of every partition of the run.
    """
    written, metadata = _write(delivery, refused, unused=unused)
    versions = partition_versions(delivery.keys, written.hashes_by_partition)
    for name, count in rows_by_partition_key(delivery.keys, written.rows_by_partition).items():
        if name not in refused:
            yield dg.AssetMaterialization(
                asset_key=context.asset_key,
                partition=name,
                metadata=metadata | {"dagster/partition_row_count": count, PARTITION_FINGERPRINT: versions[name]},
                tags={DATA_VERSION_TAG: versions[name]},
            )


def _write(delivery: Delivery, refused: Sequence[str], *, unused: Sequence[str]) -> tuple[WriteResult, dict[str, Any]]:
    """Write the partitions of the delivery but those `refused`; returns the result, and the metadata."""
    written = delivery.write(refused)
    descriptions = {name: column.description for name, column in delivery.table.columns.items()}
    metadata: dict[str, Any] = {
        **written_metadata(written),
        "rejected_rows": sum(rows.rows for rows in delivery.rejected.values()),
        "rejects_table": dg.MetadataValue.text(f"lake.{REJECTS_SCHEMA}.{delivery.name}"),
        "dagster/column_schema": table_schema(delivery.connection, delivery.raw, descriptions | _AUDIT_DESCRIPTIONS),
        "unused_source_columns": dg.MetadataValue.json(list(unused)),
    }
    return written, metadata
