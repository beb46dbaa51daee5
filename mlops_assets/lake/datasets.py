"""Training datasets in the lake's history: every one that was written, and the way to build it again.

The commit that wrote a dataset holds its query, with the snapshot it read, so that no later backfill, correction or change of the
solution's YAML can alter what a rebuild gives.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb

from mlops_assets.lake.tables import LakeError, fingerprint

_DESCRIBED = ("table", "fingerprint", "training_date", "source_snapshot", "feature_views", "query")


@dataclass(frozen=True)
class RecordedDataset:
    """One dataset: content fingerprint, training date, the snapshot and feature view versions it was read from, when and by which run."""

    table: str
    fingerprint: str
    training_date: str
    source_snapshot: int
    feature_views: Mapping[str, int]
    written_at: datetime
    run_id: str
    query: str


def dataset_information(
    *, query: str, training_date: date, source_snapshot: int, feature_views: Mapping[str, int]
) -> dict[str, Any]:
    """Return the record of a dataset for its commit, for `Lake.replace(information=...)`."""
    return {
        "query": query,
        "training_date": training_date.isoformat(),
        "source_snapshot": source_snapshot,
        "feature_views": dict(feature_views),
    }


def recorded_datasets(connection: duckdb.DuckDBPyConnection, table: str) -> list[RecordedDataset]:
    """Every dataset ever written to `table`, oldest first."""
    rows = connection.execute(
        "SELECT snapshot_time, author, commit_extra_info FROM lake.snapshots() "
        "WHERE commit_extra_info LIKE '%\"source_snapshot\"%' ORDER BY snapshot_id"
    ).fetchall()
    datasets = []
    for written_at, author, text in rows:
        information = json.loads(text)
        if information["table"] == table:
            # A commit records more, such as the columns that it added.
            described = {name: information[name] for name in _DESCRIBED}
            datasets.append(RecordedDataset(written_at=written_at, run_id=author, **described))
    return datasets


def dataset_snapshots(connection: duckdb.DuckDBPyConnection) -> set[int]:
    """The snapshots that the datasets of all tables need: what each was read from, and the one that records it."""
    rows = connection.execute(
        "SELECT snapshot_id, commit_extra_info FROM lake.snapshots() WHERE commit_extra_info LIKE '%\"source_snapshot\"%'"
    ).fetchall()
    return {number for recorded, text in rows for number in (recorded, int(json.loads(text)["source_snapshot"]))}


def newest_dataset(connection: duckdb.DuckDBPyConnection, table: str, training_date: date) -> RecordedDataset | None:
    """The dataset of `training_date` as `table` holds it now; None when its commit is no longer in the lake's history."""
    dated = [dataset for dataset in recorded_datasets(connection, table) if dataset.training_date == training_date.isoformat()]
    return dated[-1] if dated else None


def find_dataset(connection: duckdb.DuckDBPyConnection, table: str, prefix: str) -> RecordedDataset:
    """The newest dataset of `table` whose fingerprint begins with `prefix`. Raises LakeError naming those that exist."""
    datasets = recorded_datasets(connection, table)
    matching = [dataset for dataset in datasets if dataset.fingerprint.startswith(prefix)]
    if len({dataset.fingerprint for dataset in matching}) != 1:
        known = ", ".join(dict.fromkeys(dataset.fingerprint for dataset in datasets)) or "none"
        reason = "several datasets begin" if matching else "no dataset begins"
        raise LakeError(f"{reason} with {prefix!r} in {table}; known: {known}.")
    return matching[-1]


def rebuild_dataset(connection: duckdb.DuckDBPyConnection, dataset: RecordedDataset) -> str:
    """Build `dataset` again as the temporary table `rebuilt_dataset` and return its fingerprint.

    Raises LakeError when a snapshot it read has been expired, or the fingerprint is another one.
    """
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE rebuilt_dataset AS {dataset.query}")
    except duckdb.InvalidInputException as error:
        raise LakeError(f"Snapshot {dataset.source_snapshot} is gone, and the dataset with it: {error}") from error
    rebuilt = fingerprint(connection, "temp.main.rebuilt_dataset")
    if rebuilt != dataset.fingerprint:
        raise LakeError(f"The rebuilt rows have the fingerprint {rebuilt} instead of {dataset.fingerprint}.")
    return rebuilt
