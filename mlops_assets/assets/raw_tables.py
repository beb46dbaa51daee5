"""Raw tables: rows of a source as they came, typed, in the lake; what does not parse is kept apart with the reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.assets.execution import (
    RETRIES,
    partition_range,
    permanent_failure,
    record_partition_rows,
    rows_by_partition_key,
    run_time,
    table_schema,
    written_metadata,
)
from mlops_assets.automation.conditions import ARRIVE
from mlops_assets.automation.freshness import freshness_policy
from mlops_assets.automation.partitions import build_partitions
from mlops_assets.checks import tables as checks
from mlops_assets.keys import RAW_SCHEMA, table_key
from mlops_assets.resources.lake import Lake, LakeError, PartitionRange, quote, sql_moment
from mlops_assets.resources.source_files import confine
from mlops_assets.resources.source_reader import PARSED, REASON, ROW, SOURCE, SourceError, Window, parse
from mlops_assets.settings import Settings
from mlops_assets.source import RawTable, Source

REJECTS_SCHEMA = "raw_rejects"
_AUDIT_DESCRIPTIONS = {
    "_source": "File or database the row came from.",
    "_loaded_at": "When the run that loaded the row was created, UTC.",
}


class RawTableConfig(dg.Config):
    """Run configuration: files to read in place of those in the YAML file, for this run alone, such as a corrected delivery."""

    files: list[str] | None = None

    def read(self, table: RawTable, directory: Path) -> RawTable:
        """`table` as this run reads it. Raises Failure for files that a run may not name, and for a table that comes from a query."""
        if self.files is None:
            return table
        if table.files is None:
            raise permanent_failure("files: this table is read by a query, not from files.")
        deliveries = Settings.from_environment().deliveries_directory
        try:
            confine(self.files, own=table.files, directory=directory, deliveries=deliveries)
        except SourceError as error:
            raise permanent_failure(f"files: {error}") from error
        return table.model_copy(update={"files": self.files})


def build_raw_assets(source: Source, *, directory: Path) -> list[dg.AssetsDefinition]:
    """One asset for each table of `source`, with its checks. Relative file names start at `directory`."""
    return [_build_raw_asset(name, table, owners=source.owners, directory=directory) for name, table in source.tables.items()]


def _build_raw_asset(name: str, table: RawTable, *, owners: Sequence[str], directory: Path) -> dg.AssetsDefinition:
    key = table_key(f"{RAW_SCHEMA}.{name}")
    rules = [checks.ROW_COUNT, checks.REJECTED_ROWS, checks.CONSTANT_COLUMNS]
    if table.key:
        rules.append(checks.DUPLICATES)
    bounds = {
        column_name: checks.Bounds(minimum=column.minimum, maximum=column.maximum, accepted=column.accepted)
        for column_name, column in table.columns.items()
        if (column.minimum, column.maximum, column.accepted) != (None, None, None)
    }
    if bounds:
        rules.append(checks.RANGES)
    partitions = table.partitions

    @dg.asset(
        key=key,
        description=table.description,
        owners=list(owners),
        group_name=RAW_SCHEMA,
        kinds={table.format or "sql", "duckdb"},
        partitions_def=build_partitions(partitions.start, partitions.end, partitions.cadence) if partitions else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[rule.spec(key) for rule in rules],
        freshness_policy=freshness_policy(partitions.freshness) if partitions else None,
        automation_condition=ARRIVE if partitions and partitions.end is None else None,
        retry_policy=RETRIES,
    )
    def raw_table(
        context: dg.AssetExecutionContext, config: RawTableConfig, lake: dg.ResourceParam[Lake]
    ) -> dg.MaterializeResult:
        replaced = partition_range(context, partitions.column) if partitions else None
        window = Window(column=replaced.column, start=replaced.start, end=replaced.end) if replaced else None
        with lake.connect(read_only=False) as connection:
            try:
                with parse(
                    connection, config.read(table, directory), directory=directory, window=window, own_files=table.files
                ) as unused:
                    result = _load(context, connection, lake, name=name, table=table, replaced=replaced)
                    inside = f"(FROM {PARSED} WHERE {REASON} IS NULL)"
                    if bounds:
                        result.append(
                            checks.check_ranges(
                                connection, key, relation=inside, bounds=bounds, maximum_share=table.maximum_outside_share
                            )
                        )
                    if table.key:
                        result.append(checks.check_duplicates(connection, key, relation=inside, columns=table.key))
                    result.append(
                        checks.check_constant_columns(connection, key, relation=inside, columns=_compared_columns(table))
                    )
            except (SourceError, LakeError) as error:
                raise permanent_failure(str(error)) from error
            schema = table_schema(
                connection,
                f"{RAW_SCHEMA}.{name}",
                {column_name: column.description for column_name, column in table.columns.items()} | _AUDIT_DESCRIPTIONS,
            )
        metadata: dict[str, Any] = {"dagster/column_schema": schema, "unused_source_columns": dg.MetadataValue.json(unused)}
        return dg.MaterializeResult(metadata=metadata, check_results=result)

    return raw_table


def _compared_columns(table: RawTable) -> list[str]:
    """Columns that should vary within any run: not the parts of the key or the partition, which a short run holds constant."""
    fixed = {*table.key, *([table.partitions.column] if table.partitions else [])}
    return [name for name, column in table.columns.items() if name not in fixed and not column.required]


def _load(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    *,
    name: str,
    table: RawTable,
    replaced: PartitionRange | None,
) -> list[dg.AssetCheckResult]:
    """Write accepted and rejected rows; returns the checks on counts."""
    key = table_key(f"{RAW_SCHEMA}.{name}")
    names = ", ".join(quote(column) for column in table.columns)
    loaded_at = sql_moment(run_time(context))
    written = lake.replace(
        connection,
        table=f"{RAW_SCHEMA}.{name}",
        query=f"SELECT {names}, {SOURCE} AS _source, {loaded_at} AS _loaded_at FROM {PARSED} WHERE {REASON} IS NULL",
        partition_range=replaced,
        author=context.run.run_id,
    )
    partition = f"{quote(replaced.column)}, " if replaced else ""
    lake.replace(
        connection,
        table=f"{REJECTS_SCHEMA}.{name}",
        query=f"SELECT {partition}{REASON} AS reason, {ROW} AS row, {SOURCE} AS source, {loaded_at} AS _loaded_at "
        f"FROM {PARSED} WHERE {REASON} IS NOT NULL",
        partition_range=PartitionRange(replaced.column, replaced.start, replaced.end, include_null=True) if replaced else None,
        author=context.run.run_id,
    )
    reasons = dict(
        connection.execute(
            f"SELECT {REASON}, count(*) FROM {PARSED} WHERE {REASON} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall()
    )
    context.add_asset_metadata(
        {
            **written_metadata(written),
            "rejected_rows": sum(reasons.values()),
            "rejects_table": dg.MetadataValue.text(f"lake.{REJECTS_SCHEMA}.{name}"),
        },
        asset_key=key,
    )
    if replaced:
        record_partition_rows(context, written.rows_by_partition)
    counted = rows_by_partition_key(context.partition_keys, written.rows_by_partition) if replaced else {"": written.rows}
    return [
        checks.check_row_count(key, rows_by_partition=counted, partition_keys=list(counted), minimum=table.minimum_rows),
        checks.check_rejected_rows(key, accepted=written.rows, reasons=reasons, maximum_share=table.maximum_reject_share),
    ]
