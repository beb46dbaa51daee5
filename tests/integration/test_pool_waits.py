"""A step that waits for its place in a pool, in a real Postgres: its process sleeps, and asks again in a second."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.test_utils import create_run_for_test
from run_instances import stored_instance

from mlops_assets.runs.pool_waits import DAGSTERS_WAIT, TRY_SECONDS

MOST = TRY_SECONDS + 0.01


def test_a_step_without_a_place_lets_its_process_sleep(
    create_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stored_instance(create_database("pool_waits"), tmp_path) as instance:
        instance.event_log_storage.set_concurrency_slots("pool", 1)
        first, second = (create_run_for_test(instance) for _ in range(2))
        with InstanceConcurrencyContext(instance, first) as holding, InstanceConcurrencyContext(instance, second) as waiting:
            assert holding.claim("pool", "step")
            assert not waiting.claim("pool", "step")
            assert DAGSTERS_WAIT(waiting) <= 0, "Dagster sleeps by itself: the module is not needed any more"
            assert 0 < waiting.interval_to_next_pending_claim_check() <= MOST
            assert holding.interval_to_next_pending_claim_check() == 0
            holding.free_step("step")
            with monkeypatch.context() as patch:
                now = time.time() - 3600
                patch.setattr(time, "time", lambda: now)  # the clock is set back by an hour
                assert 0 < waiting.interval_to_next_pending_claim_check() <= MOST
                patch.setattr(time, "time", lambda: now + 2 * TRY_SECONDS)
                assert waiting.claim("pool", "step")
