"""Upkeep of the lake: merging small files, expiring snapshots that nobody needs, removing files that nobody reads.

Every step is a transaction of its own and leaves a lake that reads the same: whoever is killed between two of them repeats nothing.
"""

from collections.abc import Callable, Iterator, Set
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import duckdb

from mlops_assets.lake.catalog_files import may_remove_files
from mlops_assets.lake.compaction import compact, compactable_tables
from mlops_assets.lake.kept_snapshots import number_ranges, sort_snapshots
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import sql_moment
from mlops_assets.lake.tables import CATALOG

Report = Callable[[str], None]
"""Called with what is done next."""

_EXPIRED_AT_ONCE = 1000


@dataclass(frozen=True)
class LakePolicy:
    """For how many days every snapshot is kept, for how many that of a prediction, and for how many hours a file that is named nowhere.

    `needed` snapshots stay as well, and every file that was there at the moment `branched`, since which branches read it.
    """

    kept_days: int
    traced_days: float
    grace_hours: int
    needed: Set[int] = frozenset()
    branched: datetime | None = None


@dataclass(frozen=True)
class LakeSize:
    """The snapshots, the Parquet files in the folder and their bytes, the rows of DuckLake's own tables, the bytes of their database."""

    snapshots: int
    files: int
    file_bytes: int
    catalog_rows: int
    catalog_bytes: int


@dataclass
class LakeMaintenance:
    """The result: the size before, and what was done with the size after it, or what a dry run would do.

    `expired_numbers` are first and last of adjacent snapshots that expired. `kept` counts the snapshots that stay by the reason. `in_use` are
    tables that were being written all the time. What is younger than the `oldest_work` that is still under way stays, snapshots and files.
    """

    before: LakeSize
    oldest_work: datetime
    after: LakeSize | None = None
    compacted: list[str] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)
    expired: int = 0
    expired_numbers: list[tuple[int, int]] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def maintain_lake(lake: Lake, policy: LakePolicy, *, now: datetime, dry_run: bool, report: Report) -> LakeMaintenance:
    """Merge, expire and remove what `policy` allows at `now`; with `dry_run` only find it, beside whoever works.

    Waits for a backup that is being made, and a backup for it.
    """
    right = nullcontext() if dry_run else may_remove_files(lake.catalog)
    with right, lake.connect(read_only=False) as connection:
        report("Measuring the lake")
        result = LakeMaintenance(before=measure_lake(lake, connection), oldest_work=_oldest_work(lake))
        for table in compactable_tables(connection):
            report(f"Merging files of {table}")
            merged = dry_run or compact(lake, connection, table)
            (result.compacted if merged else result.in_use).append(table)
        report("Expiring snapshots")
        _expire(connection, policy, now, dry_run, result)
        # Again, for those who began before a merge was done.
        result.oldest_work = min(result.oldest_work, _oldest_work(lake))
        before = min(now - timedelta(hours=policy.grace_hours), result.oldest_work)
        if policy.branched is not None and policy.branched < before:
            report(
                f"Files stay that a branch may read, which was made at {policy.branched:%Y-%m-%d %H:%M} UTC: mlops branch list"
            )
            before = policy.branched
        report("Removing files")
        result.removed = _remove(connection, "ducklake_cleanup_old_files", before, dry_run)
        report("Removing orphaned files")
        result.orphans = _remove(connection, "ducklake_delete_orphaned_files", before, dry_run)
        if not dry_run:
            result.after = measure_lake(lake, connection)
    return result


def measure_lake(lake: Lake, connection: duckdb.DuckDBPyConnection) -> LakeSize:
    """The size of the lake as it is now."""
    [(snapshots,)] = connection.execute(f"SELECT count(*) FROM {CATALOG}.ducklake_snapshot").fetchall()
    sizes = lake.file_sizes()
    with lake.catalog_cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'ducklake%'")
        counts = " + ".join(f'(SELECT count(*) FROM "{table}")' for (table,) in cursor.fetchall())
        cursor.execute(f"SELECT {counts}, pg_database_size(current_database())")
        [(rows, catalog_bytes)] = cursor.fetchall()
    return LakeSize(int(snapshots), len(sizes), sum(sizes), int(rows), int(catalog_bytes))


def _oldest_work(lake: Lake) -> datetime:
    """The moment since which whoever is reading or writing does so; now, when nobody is.

    A reader has a transaction open in the catalog since before it got to know its files. A writer may open one only when it commits:
    what it wrote until then is protected by the grace period alone.
    """
    with lake.catalog_cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(min(xact_start), now()) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        [(moment,)] = cursor.fetchall()
    return datetime.astimezone(moment, UTC)


def _expire(
    connection: duckdb.DuckDBPyConnection, policy: LakePolicy, now: datetime, dry_run: bool, result: LakeMaintenance
) -> None:
    boundary = min(now - timedelta(days=policy.kept_days), result.oldest_work)
    traced_since = now - timedelta(days=policy.traced_days)
    sorted_snapshots = sort_snapshots(connection, boundary=boundary, traced_since=traced_since, needed=policy.needed)
    result.kept = {reason: len(numbers) for reason, numbers in sorted_snapshots.by_reason.items()}
    result.expired = len(sorted_snapshots.expirable)
    result.expired_numbers = number_ranges(sorted_snapshots.expirable)
    if not dry_run:
        for versions in _parts(sorted_snapshots.expirable):
            connection.execute(
                f"CALL ducklake_expire_snapshots('lake', versions => [{', '.join(map(str, versions))}])"
            ).fetchall()


def _parts(numbers: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(numbers), _EXPIRED_AT_ONCE):
        yield numbers[start : start + _EXPIRED_AT_ONCE]


def _remove(connection: duckdb.DuckDBPyConnection, function: str, before: datetime, dry_run: bool) -> list[str]:
    """Remove with a `function` of DuckLake the files of before a moment; one that is gone already, after a kill, is no fault."""
    rows = connection.execute(
        f"CALL {function}('lake', older_than => {sql_moment(before)}, dry_run => {str(dry_run).lower()})"
    ).fetchall()
    return [path for (path,) in rows]
