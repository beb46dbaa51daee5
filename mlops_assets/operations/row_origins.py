"""The feature views and raw partitions behind one stored prediction, with their pages in Dagster."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlops_assets.clients.dagster_client import DagsterClient, Materialization
from mlops_assets.core.keys import RAW_SCHEMA
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.datasets import RecordedDataset
from mlops_assets.lake.lake import Lake
from mlops_assets.maintenance.lake_maintenance import EXPIRED_NUMBERS_METADATA
from mlops_assets.maintenance.upkeep import LAKE_MAINTENANCE
from mlops_assets.operations.partition_windows import PartitionCalendar, PartitionWindow
from mlops_assets.operations.value_origins import (
    Days,
    ModelHistory,
    TableRead,
    ValueOrigin,
    is_kept,
    key_of,
    key_ranges,
    present_partitions,
    value_origins,
)
from mlops_assets.schema.column_names import SOURCE_SNAPSHOT
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.training.allowed_histories import earlier_rows

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.schema.solution import Solution

_ALL_ROWS = "all rows"
_MOST_MAINTENANCES = 5000


class RowOrigins:
    """The origins of the stored prediction `values` of `solution`, read at the snapshots that were recorded with it."""

    def __init__(self, settings: Settings, client: DagsterClient, solution: "Solution", values: Mapping[str, Any]):
        self._lake = Lake.from_settings(settings)
        self._client = client
        self._solution = solution
        self._values = values
        self._assets = client.assets(with_checks=False)
        self._calendar = PartitionCalendar(client)
        self._registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
        self._history = ModelHistory(json.loads(current_project().dbt_manifest.read_text()))

    @cached_property
    def _origins(self) -> list[ValueOrigin]:
        with self._lake.connect(read_only=True) as connection:
            return value_origins(connection, self._registry, self._values)

    def expired(self) -> list[str]:
        """Each snapshot of the values that has expired, as a sentence that says since when, and what is not known for it."""
        numbers = {origin.snapshot for origin in self._origins if origin.is_expired and origin.snapshot is not None}
        if not numbers:
            return []
        maintenances = self._client.materializations(LAKE_MAINTENANCE.to_user_string(), _MOST_MAINTENANCES)
        return [describe_expiry(number, maintenances) for number in sorted(numbers)]

    def feature_views(self) -> list[dict[str, Any]]:
        """The row of each view that the values came from: its time, partition and load, and the snapshot at which it was read."""
        found = []
        for origin in self._origins:
            key = origin.view.model.table.replace(".", "/")
            partition = key_of(self._windows(key), origin.partition) if origin.partition else None
            found.append(
                {
                    "view": origin.view.name,
                    "version": origin.view.version,
                    "table": origin.view.model.table,
                    "flag": origin.flag,
                    "values_from": origin.values_from,
                    "snapshot": origin.snapshot,
                    **({"snapshot_expired": True} if origin.is_expired else {}),
                    "partition": partition,
                    "loaded_at": origin.loaded_at,
                    "dagster": self._client.asset_url(key, partition),
                }
            )
        return found

    def raw_partitions(self, dataset: RecordedDataset | None) -> list[dict[str, Any]]:
        """The partitions of each raw table behind the dataset and behind the values, which had rows when these were read.

        `snapshots` are those at which the values were read. Without `dataset`, whose record expired, only the values are answered for.
        """
        predicted, trained = self._reads_of_prediction(), self._reads_of_training(dataset) if dataset else {}
        found = []
        with self._lake.connect(read_only=True) as connection:
            for table in sorted(predicted.keys() | trained.keys()):
                key = table.replace(".", "/")
                if key.startswith(f"{RAW_SCHEMA}/") and key in self._assets:
                    reads = predicted.get(table, [])
                    found.append(
                        {
                            "table": table,
                            "training": self._partitions(connection, table, trained.get(table, [])),
                            "prediction": self._partitions(connection, table, reads),
                            "snapshots": sorted({read.snapshot for read in reads}),
                            "dagster": self._client.asset_url(key, None),
                        }
                    )
        return found

    def _partitions(self, connection: "duckdb.DuckDBPyConnection", table: str, reads: list[TableRead]) -> list[str] | str:
        """The ranges of partitions of `table` that had rows when it was read."""
        column = self._history.partition_column(table)
        if column is None or any(read.days is None for read in reads):
            return _ALL_ROWS if reads else []
        windows = self._windows(table.replace(".", "/"))
        keys = [
            present_partitions(connection, table, column, windows, read.days, read.snapshot)
            for read in reads
            if read.days and is_kept(connection, read.snapshot)
        ]
        return key_ranges(windows, set().union(*keys))

    def _windows(self, key: str) -> list[PartitionWindow]:
        return self._calendar.windows(key) if key in self._assets and self._assets[key].partitioned else []

    def _reads_of_prediction(self) -> dict[str, list[TableRead]]:
        """What the rows of the views were computed from, and of a prediction of the batch the row of the spine."""
        reads = []
        for origin in self._origins:
            if origin.has_row and origin.snapshot is not None:
                days = Days(origin.partition, origin.partition) if origin.partition else None
                reads.append(self._history.reads(origin.view.model.table, days, origin.snapshot))
        if (snapshot := self._values.get(SOURCE_SNAPSHOT)) is not None:
            day = self._values[self._solution.partitions.column]
            reads.append(self._history.reads(self._spine_table, Days(day, day), snapshot))
        return _by_table(reads)

    def _reads_of_training(self, dataset: RecordedDataset) -> dict[str, list[TableRead]]:
        """What the rows of the dataset were computed from: those of the training window, and values that were fresh at its beginning.

        Where rows from before the window are trained on too, all before it may have been read.
        """
        end, slack = date.fromisoformat(dataset.training_date), timedelta(days=1)
        days = Days(end, end)
        if self._solution.spine.has_time:
            days = Days(subtract_duration(end, self._solution.training.window) - slack, end - slack)
            if earlier_rows(self._solution):
                days = replace(days, first=date.min)
        reads = [self._history.reads(self._spine_table, days, dataset.source_snapshot)]
        for name, version in dataset.feature_views.items():
            view = self._registry.view(name, version)
            age = date.max.toordinal() if view.freshness_days is None else view.freshness_days
            reads.append(self._history.reads(view.model.table, days.with_earlier(age), dataset.source_snapshot))
        return _by_table(reads)

    @property
    def _spine_table(self) -> str:
        return self._registry.model(self._solution.spine_model).table


def describe_expiry(snapshot: int, maintenances: Sequence[Materialization]) -> str:
    """Describe since when a snapshot of the lake has expired, by the maintenances that Dagster recorded, and what is not known for it."""
    expired = (
        event
        for event in maintenances
        if any(first <= snapshot <= last for first, last in event.metadata.get(EXPIRED_NUMBERS_METADATA, []))
    )
    event = next(expired, None)
    since = f"on {event.at:%Y-%m-%d} (run {event.run_id})" if event else "at a time that was not recorded"
    return (
        f"Snapshot {snapshot} of the lake, from which the values were read, expired {since}. The rows of the views and the raw partitions "
        "behind the values are not known any more. MLOPS_KEPT_TRACE_DAYS is for how long they are."
    )


def _by_table(reads: Iterable[Mapping[str, TableRead]]) -> dict[str, list[TableRead]]:
    by_table: dict[str, list[TableRead]] = defaultdict(list)
    for of_model in reads:
        for table, read in of_model.items():
            if read not in by_table[table]:
                by_table[table].append(read)
    return by_table
