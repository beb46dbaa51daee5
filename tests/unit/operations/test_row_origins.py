"""The sentence about a snapshot that has expired."""

from datetime import UTC, datetime
from typing import Any

from mlops_assets.clients.dagster_client import Materialization
from mlops_assets.operations.row_origins import describe_expiry


def maintenance(day: int, **metadata: Any) -> Materialization:
    return Materialization(at=datetime(2027, 1, day, 3, 30, tzinfo=UTC), run_id=f"run-{day}", partition=None, metadata=metadata)


def test_a_snapshot_expired_with_the_maintenance_that_names_it() -> None:
    maintenances = [
        maintenance(3, expired_numbers=[[20, 30]]),
        maintenance(2, expired_numbers=[[1, 4], [6, 6]]),
        maintenance(1),  # of a former release
    ]
    assert "Snapshot 6 of the lake, from which the values were read, expired on 2027-01-02 (run run-2)." in describe_expiry(
        6, maintenances
    )
    assert "expired at a time that was not recorded" in describe_expiry(5, maintenances)
