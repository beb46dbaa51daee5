"""Token buckets that several processes share, with the real clock."""

import multiprocessing
from pathlib import Path

import pytest
from waiting import wait_for

from mlops_assets.access.rate_limits import RateLimit

NEVER = 1e-6
"""Requests a second so slow that no test sees one come."""


def test_a_burst_is_taken_at_once_and_the_next_waits_for_its_turn(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path / "shop", per_second=0.1, burst=3)
    assert [limit.take() for _ in range(3)] == [0, 0, 0]
    assert limit.take() == pytest.approx(10, abs=1)


def test_a_bucket_refills(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path / "shop", per_second=10, burst=1)
    wait_for(lambda: limit.take() > 0, every=0)
    wait_for(lambda: limit.take() == 0)


def take(path: Path, count: int) -> int:
    limit = RateLimit(path, per_second=NEVER, burst=100)
    return sum(limit.take() == 0 for _ in range(count))


def test_processes_share_a_bucket(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        taken = pool.starmap(take, [(tmp_path / "shop", 80), (tmp_path / "shop", 80)])
    # Two that take at the same instant may both get one.
    assert 100 <= sum(taken) <= 160
    assert take(tmp_path / "shop", 10) == 0


def test_a_number_of_before_a_restart_of_the_machine_stops_nobody_for_long(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    limit = RateLimit(path, per_second=0.1, burst=2)
    limit._full_at[0] = 1e9
    assert limit.take() == pytest.approx(10, abs=1)
