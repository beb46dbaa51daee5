"""What is done with one delivery of a raw table: judged while it is staged, then written, or set aside. Reading sources goes elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import CheckRule
from mlops_assets.core.keys import RAW_SCHEMA, table_key
from mlops_assets.lake.lake import Lake, PartitionRange, Written, column_types, lake_name, quote, table_exists
from mlops_assets.lake.schema_evolution import likely_renames
from mlops_assets.schema.column_names import fold, is_audit
from mlops_assets.schema.source import RawTable
from mlops_assets.sources import delivery_profiles as profiles
from mlops_assets.sources import table_checks as checks
from mlops_assets.sources.deliveries import compare_delivery
from mlops_assets.sources.reader import PARSED, REASON, ROW, SOURCE
from mlops_assets.stages.execution import permanent_failure, rows_by_partition_key

REJECTS_SCHEMA = "raw_rejects"
QUARANTINE_SCHEMA = "raw_quarantine"

_ACCEPTED = f"(FROM {PARSED} WHERE {REASON} IS NULL)"


def check_rules(table: RawTable) -> list[CheckRule]:
    """The checks of the raw table, in the order in which they are evaluated."""
    rules = [checks.ROW_COUNT, checks.REJECTED_ROWS]
    if _bounds(table):
        rules.append(checks.RANGES)
    if table.key:
        rules.append(checks.DUPLICATES)
    if table.comparison.enabled:
        rules.append(checks.DELIVERY)
    return [*rules, checks.CONSTANT_COLUMNS]


@dataclass(frozen=True)
class Delivery:
    """The rows that `parse` left staged in `PARSED`, for the raw table `name` and the partitions `keys` of the range `replaced`."""

    connection: duckdb.DuckDBPyConnection
    lake: Lake
    name: str
    table: RawTable
    replaced: PartitionRange | None
    keys: Sequence[str]
    run_id: str
    loaded_at: str

    @property
    def raw(self) -> str:
        """The table that takes the delivery."""
        return f"{RAW_SCHEMA}.{self.name}"

    @property
    def quarantine(self) -> str:
        """The table that holds the delivery while it is not taken."""
        return f"{QUARANTINE_SCHEMA}.{self.name}"

    @property
    def rejects(self) -> str:
        """The table that holds the rejected rows."""
        return f"{REJECTS_SCHEMA}.{self.name}"

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows are rejected for each reason."""
        query = f"SELECT {REASON}, count(*) FROM {PARSED} WHERE {REASON} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
        return dict(self.connection.execute(query).fetchall())

    def judge(self) -> list[dg.AssetCheckResult]:
        """Evaluate every check on the staged rows. What `compare` needs to remember is kept until the delivery is written."""
        key, table = table_key(self.raw), self.table
        day = f"CAST({quote(self.replaced.column)} AS VARCHAR)" if self.replaced else "NULL"
        by_day = dict(self.connection.execute(f"SELECT coalesce({day}, ''), count(*) FROM {_ACCEPTED} GROUP BY 1").fetchall())
        counted = rows_by_partition_key(self.keys, by_day) if self.replaced else {"": sum(by_day.values())}
        results = [
            checks.check_row_count(key, rows_by_partition=counted, partition_keys=list(counted), minimum=table.minimum_rows),
            checks.check_rejected_rows(
                key,
                accepted=sum(by_day.values()),
                reasons=self.reasons,
                maximum_share=table.maximum_reject_share,
                rejects=self.rejects,
            ),
        ]
        if bounds := _bounds(table):
            results.append(
                checks.check_ranges(
                    self.connection, key, relation=_ACCEPTED, bounds=bounds, maximum_share=table.maximum_outside_share
                )
            )
        if table.key:
            results.append(checks.check_duplicates(self.connection, key, relation=_ACCEPTED, columns=table.key))
        if table.comparison.enabled:
            results.append(self._compare(key))
        results.append(checks.check_constant_columns(self.connection, key, relation=_ACCEPTED, columns=_compared_columns(table)))
        return results

    def _compare(self, key: dg.AssetKey) -> dg.AssetCheckResult:
        rules, partitions = self.table.comparison, self.table.partitions
        types = {name: column.type for name, column in self.table.columns.items() if not partitions or name != partitions.column}
        delivered = profiles.profile_delivery(
            self.connection,
            relation=_ACCEPTED,
            types=types,
            partition_column=self.replaced.column if self.replaced else None,
            keys=self.keys,
            end=self.replaced.end if self.replaced else None,
        )
        if self.replaced:
            before = profiles.preceding_profiles(
                self.connection, self.name, before=self.replaced.start, partitions=rules.partitions
            )
        else:
            before = profiles.last_profile(self.connection, self.name)
            rules = rules.model_copy(update={"minimum_partitions": 1})
        optional = [name for name, column in self.table.columns.items() if column.optional]
        findings = compare_delivery(delivered, before, rules, optional)
        return checks.check_delivery(key, findings, before=len({profile.partition for profile in before}))

    def require_known_columns(self) -> None:
        """Raise Failure when a column has probably been renamed: its values would be in two columns, half of them null in each."""
        if not table_exists(self.connection, self.raw):
            return
        existing = {fold(name): (name, kind) for name, kind in column_types(self.connection, lake_name(self.raw)).items()}
        types = column_types(self.connection, PARSED)
        declared = {fold(name) for name in self.table.columns}
        pairs = likely_renames(
            self.connection,
            old=lake_name(self.raw),
            new=_ACCEPTED,
            gone={name: kind for folded, (name, kind) in existing.items() if folded not in declared and not is_audit(name)},
            added={name: types[name] for name in self.table.columns if fold(name) not in existing},
        )
        if pairs:
            texts = "; ".join(f"{old} is gone and {new} has {share:.0%} of its values" for old, new, share in pairs)
            options = " ".join(f"--rename {old}={new}" for old, new, _ in pairs)
            raise permanent_failure(
                f"{self.raw}: {texts}: probably the same column renamed. Nothing was written. To follow it: "
                f"`mlops schema apply {self.raw} {options}`. If it is another column: `mlops schema apply {self.raw}` adds it."
            )

    def write(self) -> Written:
        """Make the range of the raw table the accepted rows, remember their profile, and clear what was set aside for the range."""
        written = self._write_rows(self.raw, include_null=False)
        if self.table.comparison.enabled:
            self.lake.replace(
                self.connection,
                table=f"{profiles.PROFILES_SCHEMA}.{self.name}",
                query=profiles.store_query(),
                partition_range=PartitionRange("partition", self.replaced.start, self.replaced.end) if self.replaced else None,
                author=self.run_id,
            )
        if table_exists(self.connection, self.quarantine):
            self.lake.replace(
                self.connection,
                table=self.quarantine,
                query=f"FROM {lake_name(self.quarantine)} WHERE false",
                partition_range=self._range(include_null=True),
                author=self.run_id,
            )
        return written

    def set_aside(self, failed: Sequence[dg.AssetCheckResult]) -> str:
        """Write the accepted rows to the table of quarantine, leave the raw table as it is, and return what happened and what to do."""
        self._write_rows(self.quarantine, include_null=True)
        what = f"The delivery of {self._partitions()}" if self.replaced else "The delivery"
        names = ", ".join(f"{result.check_name} ({result.description})" for result in failed)
        return (
            f"{what} was not taken into {self.raw}, which is as it was: {names}. Its rows are in {self.quarantine}. Deliver corrected rows, "
            'or take these as they are with the run configuration `accept: "<why>"`.'
        )

    def write_rejects(self) -> None:
        """Make the range of the table of rejects the rejected rows of this delivery."""
        partition = f"{quote(self.replaced.column)}, " if self.replaced else ""
        self.lake.replace(
            self.connection,
            table=self.rejects,
            query=f"SELECT {partition}{REASON} AS reason, {ROW} AS row, {SOURCE} AS source, {self.loaded_at} AS _loaded_at "
            f"FROM {PARSED} WHERE {REASON} IS NOT NULL",
            partition_range=self._range(include_null=True),
            author=self.run_id,
        )

    def _write_rows(self, table: str, *, include_null: bool) -> Written:
        names = ", ".join(quote(column) for column in self.table.columns)
        return self.lake.replace(
            self.connection,
            table=table,
            query=f"SELECT {names}, {SOURCE} AS _source, {self.loaded_at} AS _loaded_at FROM {PARSED} WHERE {REASON} IS NULL",
            partition_range=self._range(include_null=include_null),
            author=self.run_id,
        )

    def _range(self, *, include_null: bool) -> PartitionRange | None:
        if self.replaced is None:
            return None
        return PartitionRange(self.replaced.column, self.replaced.start, self.replaced.end, include_null=include_null)

    def _partitions(self) -> str:
        first, last = min(self.keys), max(self.keys)
        return first if first == last else f"{first} to {last}"


def is_blocking(result: dg.AssetCheckResult) -> bool:
    """Whether the outcome stops the delivery."""
    return not result.passed and result.severity == dg.AssetCheckSeverity.ERROR


def with_metadata(result: dg.AssetCheckResult, **texts: str) -> dg.AssetCheckResult:
    """`result` with further texts among its evidence."""
    return result._replace(
        metadata={**(result.metadata or {}), **{name: dg.MetadataValue.text(text) for name, text in texts.items()}}
    )


def as_accepted(result: dg.AssetCheckResult, why: str) -> dg.AssetCheckResult:
    """A blocking outcome that a person took responsibility for: a warning, with the reason."""
    return with_metadata(result, accepted_because=why)._replace(severity=dg.AssetCheckSeverity.WARN)


def _bounds(table: RawTable) -> dict[str, checks.Bounds]:
    return {
        name: checks.Bounds(minimum=column.minimum, maximum=column.maximum, accepted=column.accepted)
        for name, column in table.columns.items()
        if (column.minimum, column.maximum, column.accepted) != (None, None, None)
    }


def _compared_columns(table: RawTable) -> list[str]:
    """Columns that should vary within any run: not the parts of the key or the partition, which a short run holds constant."""
    fixed = {*table.key, *([table.partitions.column] if table.partitions else [])}
    return [name for name, column in table.columns.items() if name not in fixed and not column.required]
