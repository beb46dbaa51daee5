"""Notices of runs through a real Postgres: what is stored is heard, also after a time without a connection, and makes sensors due."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.sensor import get_elapsed
from run_instances import CODE, REMOTE, stored_instance

from mlops_assets.runs.event_storage import RunStorage, ScheduleStorage
from mlops_assets.runs.run_notices import RunNotice, listen

DATABASE = "run_notices"
HEARD_SECONDS = 30
"""As long as a busy machine may take."""
INTERVAL = 3600


@pytest.fixture(scope="module")
def instance(create_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with stored_instance(create_database(DATABASE), tmp_path_factory.mktemp(DATABASE)) as stored:
        yield stored


@pytest.fixture(scope="module")
def heard(instance: dg.DagsterInstance) -> "queue.Queue[RunNotice]":
    """What a listener hears. It has begun."""
    notices: queue.Queue[RunNotice] = queue.Queue()
    storage = instance.run_storage
    assert isinstance(storage, RunStorage)
    threading.Thread(target=listen, args=(storage.engine, notices.put), daemon=True).start()
    assert _next(notices, len(RunNotice)) == list(RunNotice)
    return notices


def test_a_run_that_waits_or_has_ended_is_heard_of(instance: dg.DagsterInstance, heard: "queue.Queue[RunNotice]") -> None:
    run = create_run_for_test(instance, status=DagsterRunStatus.NOT_STARTED, remote_job_origin=REMOTE, job_code_origin=CODE)
    for status, event in (
        ("ENQUEUED", RunNotice.QUEUED),
        ("STARTING", None),
        ("START", None),
        ("SUCCESS", RunNotice.ENDED),
        ("FAILURE", RunNotice.ENDED),
        ("CANCELED", RunNotice.ENDED),
    ):
        kind = dg.DagsterEventType[f"RUN_{status}"]
        instance.report_dagster_event(dg.DagsterEvent(kind.value, "job"), run.run_id)
        assert event is None or _next(heard, 1) == [event]
    assert heard.empty()


def test_what_is_recorded_outside_of_runs_is_heard_of(instance: dg.DagsterInstance, heard: "queue.Queue[RunNotice]") -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("readings"))
    assert _next(heard, 1) == [RunNotice.ENDED]


def test_after_a_lost_connection_everything_may_have_happened(heard: "queue.Queue[RunNotice]", postgres_directory: Path) -> None:
    connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(postgres_directory))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [DATABASE])
        assert cursor.rowcount > 0
    connection.close()
    assert _next(heard, len(RunNotice)) == list(RunNotice)


def test_a_sensor_is_due_once_for_what_it_follows(instance: dg.DagsterInstance) -> None:
    schedules = instance.schedule_storage
    assert isinstance(schedules, ScheduleStorage)
    now = time.time()
    names = ("follows", "other", "evaluated since")
    for name in names:
        began = now if name == "evaluated since" else now - 10
        data = SensorInstigatorData(began, cursor=name, min_interval=INTERVAL, last_tick_start_timestamp=began)
        origin = RemoteInstigatorOrigin(REMOTE.repository_origin, name)
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data))
    stored = {state.name: state for state in instance.all_instigator_state()}
    schedules.due = {stored[name].selector_id: now - 5 for name in ("follows", "evaluated since")}
    seen = {state.name: state for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)}
    due = {name for name, state in seen.items() if (get_elapsed(state) or 0) >= INTERVAL}
    assert due == {"follows"}
    alone = instance.get_instigator_state(stored["follows"].instigator_origin_id, stored["follows"].selector_id)
    assert alone is not None
    assert (get_elapsed(alone) or 0) >= INTERVAL
    schedules.due = {}
    assert {state.name: state for state in instance.all_instigator_state()} == stored


def _next(notices: "queue.Queue[RunNotice]", count: int) -> list[RunNotice]:
    return [notices.get(timeout=HEARD_SECONDS) for _ in range(count)]
