"""A step that waits for its place in a pool, in a real Postgres: its process sleeps, and asks again in a second."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.test_utils import create_run_for_test
from run_instances import stored_instance

from mlops_assets.runs.pool_waits import TRY_SECONDS, sleep_until_due


def test_a_step_without_a_place_lets_its_process_sleep(
    create_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "interval_to_next_pending_claim_check"
    # Restores it afterwards.
    monkeypatch.setattr(InstanceConcurrencyContext, name, getattr(InstanceConcurrencyContext, name))
    with stored_instance(create_database("pool_waits"), tmp_path) as instance:
        instance.event_log_storage.set_concurrency_slots("pool", 1)
        first, second = (create_run_for_test(instance) for _ in range(2))
        with InstanceConcurrencyContext(instance, first) as holding, InstanceConcurrencyContext(instance, second) as waiting:
            assert holding.claim("pool", "step")
            assert not waiting.claim("pool", "step")
            assert waiting.interval_to_next_pending_claim_check() <= 0, (
                "Dagster sleeps by itself: pool_waits is not needed any more"
            )
            sleep_until_due()
            assert 0 < waiting.interval_to_next_pending_claim_check() <= TRY_SECONDS + 0.01
            assert holding.interval_to_next_pending_claim_check() == 0
