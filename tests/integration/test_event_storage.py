"""Dagster's event log in a real Postgres: results of a range run are stored together, and are what Dagster alone stores."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
import sqlalchemy
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable

from mlops_assets.core.check_rules import CheckRule, Evidence, PartitionCheckResult
from mlops_assets.runs.event_storage import KEPT_CONNECTIONS, BatchingEventLog
from mlops_assets.stages.faults import step
from mlops_assets.stages.partition_versions import PARTITION_FINGERPRINT

KEY = dg.AssetKey("readings")
DAYS = dg.DailyPartitionsDefinition(start_date="2020-01-01", end_date="2020-12-31")
ALL_DAYS = DAYS.get_partition_keys()[:24]
EVIDENCE = Evidence(measured=("rows",), bound=("rows",), no_examples="A day has no rows to show.")
BLOCKING, WARNING = (CheckRule(name, "", blocking=name == "blocking", evidence=EVIDENCE) for name in ("blocking", "warning"))
CHECKS = [dg.AssetCheckKey(KEY, rule.name) for rule in (BLOCKING, WARNING)]
EVALUATION = dg.DagsterEventType.ASSET_CHECK_EVALUATION

BAD: set[str] = set()
"""Days whose rows fail both checks."""

CONTENT: dict[str, str] = {}
"""The fingerprints of days that differ from the others'."""


@dg.asset(
    key=KEY,
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[rule.partitioned_spec(KEY, DAYS) for rule in (BLOCKING, WARNING)],
)
@step
def readings(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    for day in context.partition_keys:
        context.add_asset_metadata({PARTITION_FINGERPRINT: CONTENT.get(day, "rows")}, asset_key=KEY, partition_key=day)
    yield dg.MaterializeResult(
        check_results=[
            PartitionCheckResult.from_result(
                rule.result(KEY, passed=day not in BAD, metadata={"rows": 24}, description=None), day
            )
            for day in context.partition_keys
            for rule in (BLOCKING, WARNING)
        ]
    )


@pytest.fixture(scope="module")
def instances(
    create_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dg.DagsterInstance, dg.DagsterInstance]]:
    """Our instance and one of Dagster's own, as a run worker loads them from the `storage` of its dagster.yaml."""
    loaded = []
    for name, storage in (("ours", OURS), ("dagsters", DAGSTERS)):
        host = create_database(f"events_{name}").partition("host=")[2]
        folder = tmp_path_factory.mktemp(name)
        url = f"postgresql+psycopg2://postgres@/events_{name}?host={host}"
        (folder / "dagster.yaml").write_text(storage.replace("URL", url) + "\ntelemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(str(folder)) as configured:
            loaded.append(dg.DagsterInstance.from_ref(configured.get_ref()))
    yield loaded[0], loaded[1]
    for instance in loaded:
        instance.dispose()


OURS = "storage: {custom: {module: mlops_assets.runs.event_storage, class: EventStorage, config: {postgres_url: 'URL'}}}"
DAGSTERS = "storage: {postgres: {postgres_url: 'URL'}}"


@pytest.fixture
def instance(instances: tuple[dg.DagsterInstance, dg.DagsterInstance]) -> dg.DagsterInstance:
    """Ours, without any event."""
    instances[0].wipe()
    return instances[0]


@pytest.fixture(autouse=True)
def _batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # As `mlops up` sets them, but for the size.
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "16")
    monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")


def log_of(instance: dg.DagsterInstance) -> BatchingEventLog:
    log = instance.event_log_storage
    assert isinstance(log, BatchingEventLog)
    return log


def run(instance: dg.DagsterInstance, days: Sequence[str], *, bad: set[str]) -> dg.ExecuteInProcessResult:
    """One run of a range of days."""
    BAD.clear()
    BAD.update(bad)
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    return dg.materialize([readings], instance=instance, tags=tags, raise_on_error=False)


def stored(instance: dg.DagsterInstance) -> tuple[Counter[Any], Counter[Any], dict[Any, Any]]:
    """What is in the tables but for ids, times and names of runs: results of checks, events, and how each partition stands."""
    executions, events = AssetCheckExecutionsTable.c, SqlEventLogStorageTable.c
    with instance.event_log_storage._connect() as connection:  # type: ignore[attr-defined]
        results = connection.execute(
            sqlalchemy.select(
                executions.check_name,
                executions.partition,
                executions.execution_status,
                executions.materialization_event_storage_id.is_(None),
                events.dagster_event_type,
                events.event == executions.evaluation_event,
            ).join(SqlEventLogStorageTable, events.id == executions.evaluation_event_storage_id)
        ).fetchall()
        kinds = connection.execute(sqlalchemy.select(events.dagster_event_type, events.asset_key, events.partition)).fetchall()
    return Counter(map(tuple, results)), Counter(map(tuple, kinds)), state(instance)


def state(instance: dg.DagsterInstance) -> dict[tuple[str, str | None], tuple[str, bool]]:
    """What the automation reads of each check and partition: the newest status, and whether it is about the newest materialization."""
    return {
        (info.check_key.name, info.partition_key): (
            info.latest_execution_status.value,
            info.latest_target_materialization_storage_id == info.latest_materialization_storage_id,
        )
        for info in instance.event_log_storage.get_asset_check_partition_info(CHECKS)
    }


@pytest.mark.long
def test_it_stores_what_dagster_stores(
    instance: dg.DagsterInstance, instances: tuple[dg.DagsterInstance, dg.DagsterInstance]
) -> None:
    ours, dagsters = instances
    for days, bad in ((ALL_DAYS, {ALL_DAYS[7]}), (ALL_DAYS[5:10], set()), (ALL_DAYS[:1], set())):
        successes = {run(instance, days, bad=bad).success for instance in (ours, dagsters)}
        assert successes == {not bad}
        assert stored(ours) == stored(dagsters)
    assert Counter(state(ours).values()) == {("SUCCEEDED", True): 2 * len(ALL_DAYS)}


def test_a_bad_day_is_seen_as_that_day_until_it_passes(instance: dg.DagsterInstance) -> None:
    bad = ALL_DAYS[3]
    assert not run(instance, ALL_DAYS, bad={bad}).success
    failed = {key for key, (status, _) in state(instance).items() if status == "FAILED"}
    assert failed == {("blocking", bad), ("warning", bad)}
    assert run(instance, [bad], bad=set()).success
    assert {status for status, _ in state(instance).values()} == {"SUCCEEDED"}


def test_each_partition_of_a_range_has_a_version_of_its_own(instance: dg.DagsterInstance) -> None:
    log, corrected = log_of(instance), ALL_DAYS[5]
    run(instance, ALL_DAYS, bad=set())
    seen = max(log.get_latest_storage_id_by_partition(KEY, dg.DagsterEventType.ASSET_MATERIALIZATION).values())
    run(instance, ALL_DAYS, bad=set())
    assert log.get_updated_data_version_partitions(KEY, ALL_DAYS, seen) == set()
    CONTENT[corrected] = "corrected rows"
    try:
        run(instance, ALL_DAYS, bad=set())
    finally:
        CONTENT.clear()
    assert log.get_updated_data_version_partitions(KEY, ALL_DAYS, seen) == {corrected}
    # As many as Dagster makes: one a run and partition.
    assert stored(instance)[1][dg.DagsterEventType.ASSET_MATERIALIZATION.value, KEY.to_string(), corrected] == 3


@contextmanager
def counted(log: BatchingEventLog) -> Iterator[Counter[str]]:
    """How many statements and connections are made meanwhile."""
    made: Counter[str] = Counter()

    def execute(*_: Any) -> None:
        made["statements"] += 1

    def connect(*_: Any) -> None:
        made["connections"] += 1

    sqlalchemy.event.listen(log._engine, "before_cursor_execute", execute)
    sqlalchemy.event.listen(log._engine, "connect", connect)
    yield made
    sqlalchemy.event.remove(log._engine, "before_cursor_execute", execute)
    sqlalchemy.event.remove(log._engine, "connect", connect)


def test_more_results_need_hardly_more_statements(instance: dg.DagsterInstance) -> None:
    with counted(log_of(instance)) as few:
        run(instance, ALL_DAYS[:3], bad=set())
    with counted(log_of(instance)) as many:
        run(instance, ALL_DAYS, bad=set())
    # 42 results and 21 materializations more.
    assert many["statements"] - few["statements"] < 21
    assert many["connections"] == 0


def test_questions_about_runs_and_schedules_make_no_connection(instance: dg.DagsterInstance) -> None:
    """The sensors ask several a second, and Postgres starts a process for each connection."""
    made: list[object] = []

    def connect(*connection: object) -> None:
        made.append(connection)

    run(instance, ALL_DAYS[:1], bad=set())
    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", connect)
    try:
        assert instance.get_runs(limit=1)
        assert instance.all_instigator_state() == []
        assert instance.get_daemon_heartbeats() == {}
    finally:
        sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", connect)
    assert made == []


def results_of(instance: dg.DagsterInstance, run_id: str) -> list[EventLogEntry]:
    return [entry for entry in instance.all_logs(run_id) if entry.dagster_event_type is EVALUATION]


def test_a_batch_is_stored_as_a_whole_or_not_at_all(instance: dg.DagsterInstance) -> None:
    log, events = log_of(instance), results_of(instance, run(instance, ALL_DAYS[:20], bad=set()).run_id)
    before = stored(instance)
    with log._connect() as connection:
        connection.execute(
            sqlalchemy.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN IF NEW.partition = '{ALL_DAYS[15]}' THEN RAISE 'the disk is full'; END IF; RETURN NEW; END $$"
            )
        )
        connection.execute(
            sqlalchemy.text(
                "CREATE TRIGGER refuse BEFORE UPDATE ON asset_check_executions FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    try:
        with pytest.raises(sqlalchemy.exc.InternalError, match="the disk is full"):
            log.store_event_batch(events)
    finally:
        with log._connect() as connection:
            connection.execute(sqlalchemy.text("DROP FUNCTION refuse CASCADE"))
    assert stored(instance) == before


def test_a_result_that_is_stored_again_takes_the_place_of_the_first(instance: dg.DagsterInstance) -> None:
    """A step that is tried again evaluates the partitions of its run again."""
    run_id = run(instance, ALL_DAYS[:4], bad=set()).run_id
    events = results_of(instance, run_id)
    log_of(instance).store_event_batch([*events, *events])
    history = log_of(instance).get_asset_check_execution_history(CHECKS[0], limit=100)
    assert Counter(record.partition for record in history) == dict.fromkeys(ALL_DAYS[:4], 1)
    newest = [entry.event_log_entry for entry in log_of(instance).get_records_for_run(run_id, of_type=EVALUATION).records]
    assert len(newest) == 3 * len(events)


def test_a_connection_that_was_closed_is_made_again(instance: dg.DagsterInstance, postgres_directory: Path) -> None:
    run(instance, ALL_DAYS[:2], bad=set())
    database = log_of(instance)._engine.url.database
    connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(postgres_directory))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", [database])
        [[closed]] = cursor.fetchall()
    assert 0 < closed <= KEPT_CONNECTIONS
    connection.close()
    assert run(instance, ALL_DAYS[:2], bad=set()).success
