"""One delivery of a raw table: checked while it is staged, then written or set aside. Reading sources goes elsewhere."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import MOST_EXAMPLES
from mlops_assets.core.keys import RAW_SCHEMA
from mlops_assets.lake.lake import Lake, WriteResult
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.schema_evolution import likely_renames
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.schema.column_names import fold, internal, is_audit
from mlops_assets.schema.source import RawTable
from mlops_assets.sources import delivery_profiles as profiles
from mlops_assets.sources import table_checks as checks
from mlops_assets.sources.reader import PARSED, REASON, ROW, SOURCE
from mlops_assets.stages.execution import permanent_failure

REJECTS_SCHEMA = "raw_rejects"
QUARANTINE_SCHEMA = "raw_quarantine"

# The columns of the raw table are in the scope of the same statement.
_DAY, _KEY = internal("day"), internal("key")
ACCEPTED = f"(FROM {PARSED} WHERE {REASON} IS NULL)"


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

    @cached_property
    def rejected(self) -> dict[str, checks.RejectedRows]:
        """The rejected rows of each partition, with the most frequent reasons; rows without a date are those of `WHOLE`."""
        self.map_days()
        rejected: dict[str, checks.RejectedRows] = defaultdict(checks.RejectedRows)
        counted = self.connection.execute(
            f"SELECT {self.partition_key}, {REASON}, count(*) FROM {PARSED} WHERE {REASON} IS NOT NULL GROUP BY ALL ORDER BY 3 DESC, 2"
        )
        for name, reason, count in counted.fetchall():
            rows = rejected[name]
            rows.rows += count
            # A reason names its line or value: a bad file has as many as rows, and they are in the table of rejects.
            if len(rows.reasons) < MOST_EXAMPLES:
                rows.reasons[reason] = count
        return dict(rejected)

    @property
    def partition_key(self) -> str:
        """SQL for the key of the partition of a row, '' without one."""
        if self.replaced is None:
            return f"'{checks.UNPARTITIONED}'"
        day = quote(self.replaced.column)
        return f"coalesce((SELECT {_KEY} FROM temp.main.partition_days WHERE {_DAY} = {day}), '{checks.UNPARTITIONED}')"

    def map_days(self) -> None:
        """Make the temporary table of each day of the range with the key of its partition."""
        if self.replaced is None:
            return
        starts, first = sorted(self.keys), self.replaced.start
        days = [first + timedelta(days=number) for number in range((self.replaced.end - first).days)]
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE partition_days AS SELECT unnest(?::DATE[]) AS {_DAY}, unnest(?::VARCHAR[]) AS {_KEY}",
            [days, [starts[bisect_right(starts, day.isoformat()) - 1] for day in days]],
        )

    def require_known_columns(self) -> None:
        """Raise Failure when a column has probably been renamed: its values would be in two columns, half of them null in each."""
        if not table_exists(self.connection, self.raw):
            return
        existing = {fold(name): (name, kind) for name, kind in column_types(self.connection, lake_name(self.raw)).items()}
        types = column_types(self.connection, PARSED)
        table_columns = {fold(name) for name in self.table.columns}
        pairs = likely_renames(
            self.connection,
            old=lake_name(self.raw),
            new=ACCEPTED,
            gone={name: kind for folded, (name, kind) in existing.items() if folded not in table_columns and not is_audit(name)},
            added={name: types[name] for name in self.table.columns if fold(name) not in existing},
        )
        if pairs:
            texts = "; ".join(f"{old} is gone and {new} has {share:.0%} of its values" for old, new, share in pairs)
            options = " ".join(f"--rename {old}={new}" for old, new, _ in pairs)
            raise permanent_failure(
                f"{self.raw}: {texts}: probably the same column renamed. Nothing was written. To follow it: "
                f"`mlops schema apply {self.raw} {options}`. If it is another column: `mlops schema apply {self.raw}` adds it."
            )

    def write(self, failed: Sequence[str]) -> WriteResult:
        """Make the range of the raw table the accepted rows, remember their profile, and clear what was set aside for the range.

        The partitions `failed` are left as they are.
        """
        left = self._ranges(failed)
        written = self._write_rows(self.raw, self._range(include_null=False, without=left))
        if self.table.comparison.enabled:
            of_profiles = (
                PartitionRange("partition", self.replaced.start, self.replaced.end, without=tuple(left))
                if self.replaced
                else None
            )
            condition = f" p WHERE {of_profiles.predicate('p')}" if of_profiles else ""
            self.lake.replace(
                self.connection,
                table=f"{profiles.PROFILES_SCHEMA}.{self.name}",
                query=f"{profiles.store_query()}{condition}",
                partition_range=of_profiles,
                author=self.run_id,
            )
        if table_exists(self.connection, self.quarantine):
            self.lake.replace(
                self.connection,
                table=self.quarantine,
                query=f"FROM {lake_name(self.quarantine)} WHERE false",
                partition_range=self._range(include_null=True, without=left),
                author=self.run_id,
            )
        return written

    def set_aside(self, failed: Mapping[str, Sequence[dg.AssetCheckResult]]) -> str:
        """Write the accepted rows of the partitions `failed` to the table of quarantine, leave those of the raw table as they are, and
        return what happened and what to do.
        """
        good = self._ranges([name for name in self.keys if name not in failed])
        self._write_rows(self.quarantine, self._range(include_null=True, without=good))
        what = f"The delivery of {_listed(sorted(failed))}" if self.replaced else "The delivery"
        names = ", ".join(
            dict.fromkeys(f"{result.check_name} ({result.description})" for results in failed.values() for result in results)
        )
        others = f" The other {len(self.keys) - len(failed)} partitions were written." if len(failed) < len(self.keys) else ""
        return (
            f"{what} was not taken into {self.raw}, which is as it was: {names}. Its rows are in {self.quarantine}.{others} Deliver "
            'corrected rows, or take these as they are with the run configuration `accept: "<why>"`.'
        )

    def write_rejects(self) -> None:
        """Make the range of the table of rejects the rejected rows of this delivery."""
        partition = f"{quote(self.replaced.column)}, " if self.replaced else ""
        self.lake.replace(
            self.connection,
            table=self.rejects,
            query=f"SELECT {partition}{REASON} AS reason, {ROW} AS row, {SOURCE} AS source, {self.loaded_at} AS _loaded_at "
            f"FROM {PARSED} WHERE {REASON} IS NOT NULL",
            partition_range=self._range(include_null=True, without=()),
            author=self.run_id,
        )

    def _write_rows(self, table: str, partition_range: PartitionRange | None) -> WriteResult:
        names = ", ".join(quote(column) for column in self.table.columns)
        inside = f"{partition_range.predicate('p')}" if partition_range and partition_range.without else "true"
        return self.lake.replace(
            self.connection,
            table=table,
            query=f"SELECT {names}, {SOURCE} AS _source, {self.loaded_at} AS _loaded_at FROM {PARSED} p WHERE {REASON} IS NULL AND {inside}",
            partition_range=partition_range,
            author=self.run_id,
        )

    def _range(self, *, include_null: bool, without: Sequence[tuple[date, date]]) -> PartitionRange | None:
        if self.replaced is None:
            return None
        return replace(self.replaced, include_null=include_null, without=tuple(without))

    def _ranges(self, names: Sequence[str]) -> list[tuple[date, date]]:
        """The days of the partitions `names`, from the first to the one after the last of each."""
        if self.replaced is None:
            return []
        starts = [*sorted(self.keys), self.replaced.end.isoformat()]
        return [(date.fromisoformat(name), date.fromisoformat(starts[bisect_right(starts, name)])) for name in sorted(names)]


def _listed(names: Sequence[str]) -> str:
    """The partitions `names`, of many the first ones and how many there are."""
    return ", ".join(names[:MOST_EXAMPLES]) + (f" and {len(names) - MOST_EXAMPLES} more" if len(names) > MOST_EXAMPLES else "")
