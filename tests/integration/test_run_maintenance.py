"""Retention of the logs of runs in a real Postgres: the logs go, and what is read of the history is what it was."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.dagster_run import RunsFilter
from run_instances import stored_instance

from mlops_assets.core.check_rules import CheckRule, Evidence, PartitionCheckResult
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.maintenance.run_logs import LOG_EXPIRED_TAG, RunLogMaintenance, expire_run_logs
from mlops_assets.maintenance.run_maintenance import build_run_maintenance
from mlops_assets.stages.faults import step

KEY = dg.AssetKey("readings")
DAYS = dg.DailyPartitionsDefinition(start_date="2020-01-01", end_date="2020-02-01")
CHECK = CheckRule("sound", "", blocking=False, evidence=Evidence(measured=("rows",), bound=("rows",), no_examples="No rows."))


@dg.asset(
    key=KEY,
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[CHECK.partitioned_spec(KEY, DAYS)],
)
@step
def readings(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    days = context.partition_keys
    context.log.info("Reading %s", days)
    sys.stdout.write("printed\n")
    if "2020-01-09" in days:
        raise dg.Failure("The sensor was away.")
    results = [
        PartitionCheckResult.from_result(
            CHECK.result(KEY, passed=day != "2020-01-02", metadata={"rows": 1}, description=None), day
        )
        for day in days
    ]
    return dg.MaterializeResult(metadata={"rows": 24}, check_results=results)


@dg.op
def telephone(context: dg.OpExecutionContext) -> None:
    context.log.info("Nobody answered")


@dg.job
def calls() -> None:
    telephone()


@pytest.fixture
def instance(
    create_database: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[dg.DagsterInstance]:
    with stored_instance(create_database(f"logs_{abs(hash(request.node.name))}"), tmp_path) as instance:
        yield instance


def run_days(instance: dg.DagsterInstance, first: str, last: str) -> str:
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return dg.materialize([readings], instance=instance, tags=tags, raise_on_error=False).run_id


def expire(instance: dg.DagsterInstance, *, days: float = 1, dry_run: bool = False) -> RunLogMaintenance:
    return expire_run_logs(instance, before=datetime.now(UTC) + timedelta(days=days), dry_run=dry_run, report=lambda _: None)


def history(instance: dg.DagsterInstance) -> list[Any]:
    """What the automation, the pages of Dagster and the product read of the past."""
    log = instance.event_log_storage
    checks = log.get_asset_check_partition_info([dg.AssetCheckKey(KEY, CHECK.name)])
    tried = log.get_latest_asset_partition_materialization_attempts_without_materializations(KEY)
    records = instance.get_run_records()
    return [
        instance.fetch_materializations(KEY, limit=100).records,
        log.get_latest_tags_by_partition(KEY, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]),
        instance.get_materialized_partitions(KEY),
        sorted(tried),
        sorted(checks, key=str),
        log.get_asset_check_execution_history(dg.AssetCheckKey(KEY, CHECK.name), limit=100),
        [(record.dagster_run.run_id, record.dagster_run.status, record.end_time, record.update_timestamp) for record in records],
        [
            (stats.step_key, stats.status, stats.end_time)
            for record in records
            for stats in log.get_step_stats_for_run(record.dagster_run.run_id)
        ],
        [instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE) for record in records],
        [instance.get_run_stats(record.dagster_run.run_id) for record in records],
    ]


def printed(instance: dg.DagsterInstance, folder: Path, run_id: str) -> list[Path]:
    return [path for path in (folder / "compute_logs" / run_id).rglob("*") if path.is_file()]


def test_the_logs_go_and_the_history_stays(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    runs = [
        run_days(instance, "2020-01-01", "2020-01-03"),
        run_days(instance, "2020-01-02", "2020-01-02"),
        run_days(instance, "2020-01-08", "2020-01-09"),
    ]
    before, messages = history(instance), instance.all_logs(runs[0])
    assert any(entry.user_message.startswith("Reading") for entry in messages)
    assert printed(instance, tmp_path, runs[0])
    planned = expire(instance, dry_run=True)
    assert history(instance) == before
    assert len(instance.all_logs(runs[0])) == len(messages)
    done = expire(instance)
    assert done.before == planned.before
    assert done.after is not None
    assert (done.expired, done.events, done.deleted) == (planned.expired, planned.events, planned.deleted) == (3, done.events, [])
    assert done.events == done.before.events - done.after.events > 0
    assert history(instance) == before
    left = {entry.dagster_event_type for run_id in runs for entry in instance.all_logs(run_id)}
    assert None not in left
    assert {dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_FAILURE} <= left
    assert {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_OUTPUT, dg.DagsterEventType.LOGS_CAPTURED}.isdisjoint(left)
    for run_id in runs:
        assert printed(instance, tmp_path, run_id) == []
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.tags[LOG_EXPIRED_TAG] == datetime.now(UTC).date().isoformat()
    assert len(instance.get_runs(RunsFilter(tags={LOG_EXPIRED_TAG: run.tags[LOG_EXPIRED_TAG]}))) == 3
    again = expire(instance)
    assert (again.expired, again.events, again.deleted) == (0, 0, [])


def test_a_run_that_is_young_or_in_progress_stays_and_one_without_assets_goes(instance: dg.DagsterInstance) -> None:
    called = calls.execute_in_process(instance=instance).run_id
    ended = run_days(instance, "2020-01-01", "2020-01-01")
    going = instance.create_run_for_job(calls, status=dg.DagsterRunStatus.STARTED).run_id
    instance.report_engine_event("It works.", run_id=going, job_name="calls")
    counts = {run_id: len(instance.all_logs(run_id)) for run_id in (called, ended, going)}
    young = expire(instance, days=-1)
    assert (young.expired, young.deleted) == (0, [])
    assert {run_id: len(instance.all_logs(run_id)) for run_id in counts} == counts
    planned = expire(instance, dry_run=True)
    done = expire(instance)
    assert done.deleted == planned.deleted == [called]
    assert instance.get_run_by_id(called) is None
    assert instance.all_logs(called) == []
    assert len(instance.all_logs(going)) == counts[going] > 0
    assert 0 < len(instance.all_logs(ended)) < counts[ended]


def test_what_fails_in_the_middle_leaves_each_run_whole_or_done(instance: dg.DagsterInstance) -> None:
    first, second = (run_days(instance, day, day) for day in ("2020-01-01", "2020-01-02"))
    counts = {run_id: len(instance.all_logs(run_id)) for run_id in (first, second)}
    before = history(instance)
    statements = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF OLD.run_id = '{second}' THEN RAISE 'the disk is full'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON event_logs FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    with instance.event_log_storage._connect() as connection:  # type: ignore[attr-defined]
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    with pytest.raises(sqlalchemy.exc.InternalError, match="the disk is full"):
        expire(instance)
    assert len(instance.all_logs(first)) < counts[first]
    assert len(instance.all_logs(second)) == counts[second]
    run = instance.get_run_by_id(second)
    assert run is not None
    assert LOG_EXPIRED_TAG not in run.tags
    with instance.event_log_storage._connect() as connection:  # type: ignore[attr-defined]
        connection.execute(sqlalchemy.text("DROP FUNCTION refuse CASCADE"))
    assert expire(instance).expired == 1
    assert len(instance.all_logs(second)) == len(instance.all_logs(first))
    assert history(instance) == before


def test_the_asset_shows_what_went(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run_id = run_days(instance, "2020-01-01", "2020-01-01")
    long_ago = (datetime.now(UTC) - timedelta(days=91)).timestamp()
    with instance.event_log_storage._connect() as connection:  # type: ignore[attr-defined]
        connection.execute(sqlalchemy.text("UPDATE runs SET end_time = :moment"), {"moment": long_ago})
    settings = Settings(home=tmp_path, kept_run_days=90)
    result = dg.materialize([build_run_maintenance()], instance=instance, resources={"settings": settings})
    [made] = result.asset_materializations_for_node("platform__run_maintenance")
    assert made.metadata["logs_removed"].value == 1
    assert made.metadata["runs"].value == 2
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert LOG_EXPIRED_TAG in run.tags


def test_another_storage_is_refused(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, pytest.raises(StackError, match=r"storage.*dagster\.yaml"):
        expire(instance)
