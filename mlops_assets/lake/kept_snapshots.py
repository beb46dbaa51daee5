"""Snapshots of the lake that must stay readable, and those that may expire."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime

import duckdb

from mlops_assets.lake.datasets import dataset_snapshots
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import CATALOG
from mlops_assets.schema.column_names import SERVED_AT, SOURCE_SNAPSHOT, VIEW_SNAPSHOTS

DATASETS, PREDICTIONS, ONLINE_STORE, RECENT = "training datasets", "predictions", "online store", "recent"
"""Why a snapshot is kept."""


@dataclass(frozen=True)
class KeptSnapshots:
    """The snapshots that stay, by the reason; one may have several. `expirable` are all others, oldest first."""

    by_reason: Mapping[str, Set[int]]
    expirable: tuple[int, ...]


def sort_snapshots(
    connection: duckdb.DuckDBPyConnection, *, boundary: datetime, traced_since: datetime, needed: Set[int]
) -> KeptSnapshots:
    """Sort the snapshots of the lake into those that must stay and those that may expire: older than `boundary`, and needed by nothing.

    A training dataset needs the snapshot that it was read from and the one that records it. A prediction made since `traced_since` needs the
    snapshots that its values are of, of any table that has such columns: also that of a solution that was removed. `needed` are those of the
    online store, whose values the predictions of tomorrow will be of.
    """
    rows = connection.execute(
        f"SELECT snapshot_id, snapshot_time FROM {CATALOG}.ducklake_snapshot ORDER BY snapshot_id"
    ).fetchall()
    older = [number for number, moment in rows if moment < boundary]
    # What was known at a moment of the last days is in the snapshot before it.
    recent = {number for number, moment in rows if moment >= boundary} | set(older[-1:]) | {number for number, _ in rows[-1:]}
    kept = {
        DATASETS: dataset_snapshots(connection),
        PREDICTIONS: _of_predictions(connection, dict(rows), traced_since),
        ONLINE_STORE: needed,
        RECENT: recent,
    }
    there = {number for number, _ in rows}
    stay = set().union(*kept.values())
    return KeptSnapshots({reason: numbers & there for reason, numbers in kept.items()}, tuple(n for n in older if n not in stay))


def number_ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of adjacent numbers, which ascend."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _of_predictions(connection: duckdb.DuckDBPyConnection, times: Mapping[int, datetime], since: datetime) -> set[int]:
    """The snapshots that predictions made since a moment name. The batch predicts at its snapshot, a server later: its rows say when."""
    columns = connection.execute(
        f"SELECT s.schema_name || '.' || t.table_name, list(c.column_name) FROM {CATALOG}.ducklake_column c "
        f"JOIN {CATALOG}.ducklake_table t USING (table_id) JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
        f"WHERE c.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL "
        f"AND c.column_name IN ({', '.join(map(literal, (SOURCE_SNAPSHOT, VIEW_SNAPSHOTS, SERVED_AT)))}) GROUP BY ALL"
    ).fetchall()
    numbers = set()
    for table, names in columns:
        moment = f"max({quote(SERVED_AT)})" if SERVED_AT in names else "CAST(NULL AS TIMESTAMPTZ)"
        for column in {SOURCE_SNAPSHOT, VIEW_SNAPSHOTS} & set(names):
            value = (
                quote(column) if column == SOURCE_SNAPSHOT else f"unnest(CAST(json_extract({quote(column)}, '$.*') AS BIGINT[]))"
            )
            rows = connection.execute(
                f"SELECT {value}, moment FROM (SELECT {quote(column)}, {moment} AS moment FROM {lake_name(table)} "
                f"WHERE {quote(column)} IS NOT NULL GROUP BY 1)"
            ).fetchall()
            for number, served in rows:
                if number in times and max(times[number], served or times[number]) >= since:
                    numbers.add(int(number))
    return numbers
