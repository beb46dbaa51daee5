"""Dagster's storage in Postgres with kept connections, and with what a step or a launch reports together stored together.

Dagster's own classes open a connection for each statement or two, for which Postgres starts a process: three for each event, and dozens a second
for the sensors. They store no batches but those of materializations. A range run has an event for each check and partition: thousands.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Self

from dagster import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.auth import PgTokenProvider
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Engine

from mlops_assets.runs import pool_waits, run_notices

_PLANNED = {DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, DagsterEventType.ASSET_MATERIALIZATION_PLANNED}
_UNIQUE = ("asset_key", "check_name", "run_id", "partition")
KEPT_CONNECTIONS = 3
"""For each process: the daemon's threads seldom need more at once."""
_UNLIMITED = -1
_ENGINES: dict[str, Engine] = {}
"""The connections of this process to a database by its address. Each tick of a sensor has an instance of Dagster of its own."""
_PRESENT: set[tuple[str, str]] = set()
"""What each database has, by its address, of the tables, columns and migrations that Dagster asks for."""


class BatchingEventLog(PostgresEventLogStorage):
    """Dagster's event log in Postgres with kept connections, and with batches in one transaction. The rows are those that Dagster writes."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self._batch = threading.local()
        super().__init__(*args, **keywords)
        self._engine = _shared_engine(self.postgres_url, self._token_provider)

    def store_event(self, event: EventLogEntry) -> None:
        """Store the event. What somebody records outside of runs is at its end at once: the daemon is told as of a run."""
        super().store_event(event)
        if not event.run_id:
            run_notices.send(self._engine, run_notices.RunNotice.ENDED)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store all `events` or none."""
        if all(map(_is_of_partition, events)):
            with self._batch_transaction() as connection:
                self._store_evaluations(connection, events)
        elif all(event.dagster_event_type in _PLANNED for event in events):
            with self._batch_transaction() as connection:
                for event, (storage_id, _) in zip(events, self._insert(connection, events), strict=True):
                    if event.dagster_event_type is DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                        self.store_asset_check_event(event, storage_id)
                    else:
                        self.store_asset_event(event, storage_id)
        else:
            super().store_event_batch(events)

    def _store_evaluations(self, connection: Connection, events: Sequence[EventLogEntry]) -> None:
        """Store the results of checks. The newest result of the run for a partition stays."""
        results = {}
        for event, (storage_id, row) in zip(events, self._insert(connection, events), strict=True):
            evaluation = event.get_dagster_event().asset_check_evaluation_data
            target, status = evaluation.target_materialization_data, AssetCheckExecutionRecordStatus
            result = {
                "asset_key": evaluation.asset_key.to_string(),
                "check_name": evaluation.check_name,
                "run_id": event.run_id,
                "partition": evaluation.partition,
                "execution_status": (status.SUCCEEDED if evaluation.passed else status.FAILED).value,
                "evaluation_event": row["event"],
                "evaluation_event_timestamp": row["timestamp"],
                "evaluation_event_storage_id": storage_id,
                "materialization_event_storage_id": target.storage_id if target else None,
            }
            results[tuple(result[name] for name in _UNIQUE)] = result
        insert = postgresql.insert(AssetCheckExecutionsTable)
        # The row of a planned check is there already.
        changes = {name: insert.excluded[name] for name in result if name not in _UNIQUE}
        connection.execute(insert.on_conflict_do_update(index_elements=_UNIQUE, set_=changes), list(results.values()))

    def _insert(self, connection: Connection, events: Sequence[EventLogEntry]) -> list[tuple[int, dict[str, Any]]]:
        """The storage id and the row of each event, once they are in the log."""
        rows = [self._event_to_row(event) for event in events]
        insert = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        return list(zip(connection.execute(insert, rows).scalars(), rows, strict=True))

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        """Ask for a step's place in a pool. Where there is none, it is asked for again in a second, not in up to 15 s."""
        claim = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        return claim if claim.is_claimed else claim.with_sleep_interval(pool_waits.TRY_SECONDS)

    def has_table(self, table_name: str) -> bool:
        """Whether the database has the table. Dagster asks for each event."""
        return _is_there(self.postgres_url, table_name, partial(super().has_table, table_name))

    @contextmanager
    def _batch_transaction(self) -> Iterator[Connection]:
        """A transaction in which Dagster's methods take part when this thread calls them."""
        with self.index_transaction() as connection:
            self._batch.connection = connection
            try:
                yield connection
            finally:
                del self._batch.connection

    def _connect(self) -> AbstractContextManager[Connection]:
        connection = getattr(self._batch, "connection", None)
        return super()._connect() if connection is None else _left_open(connection)


class RunStorage(PostgresRunStorage):
    """Dagster's runs in Postgres. Whether a column is there is looked up once in a process."""

    @property
    def engine(self) -> Engine:
        """The connections of this process."""
        return self._engine

    def has_run_stats_index_cols(self) -> bool:
        """Whether the runs have their times as columns. Dagster asks for each list of runs."""
        return _is_there(self.postgres_url, "run times", super().has_run_stats_index_cols)

    def handle_run_event(self, run_id: str, event: DagsterEvent, update_timestamp: datetime | None = None) -> None:
        """Store the run's new status, and tell the daemon of one that it waits for."""
        super().handle_run_event(run_id, event, update_timestamp)
        if notice := run_notices.NOTICES.get(event.event_type):
            run_notices.send(self.engine, notice)


class ScheduleStorage(PostgresScheduleStorage):
    """Dagster's sensors and schedules in Postgres. Whether a table is there is looked up once in a process: each tick asks five times."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.due: Mapping[str, float] = {}
        """The selector of a sensor -> a moment. If its last evaluation began before that, this process sees it as if its interval were over."""

    def get_instigator_state(self, origin_id: str, selector_id: str) -> InstigatorState | None:
        """The state of a sensor or a schedule."""
        state = super().get_instigator_state(origin_id, selector_id)
        return state and self._when_due(state)

    def all_instigator_state(self, *args: Any, **keywords: Any) -> Sequence[InstigatorState]:
        """The states of sensors and schedules."""
        return [self._when_due(state) for state in super().all_instigator_state(*args, **keywords)]

    def _when_due(self, state: InstigatorState) -> InstigatorState:
        data, moment = state.instigator_data, self.due.get(state.selector_id)
        if moment is None or not isinstance(data, SensorInstigatorData):
            return state
        started, ended = data.last_tick_start_timestamp, data.last_tick_timestamp
        if max(started or 0, ended or 0) >= moment:
            return state
        over = time.time() - (data.min_interval or 0)
        aged = data._replace(
            last_tick_start_timestamp=started and min(started, over), last_tick_timestamp=ended and min(ended, over)
        )
        return state.with_data(aged)

    def has_instigators_table(self) -> bool:
        """Whether the database has the table of sensors."""
        return _is_there(self.postgres_url, "instigators", super().has_instigators_table)

    def _has_instigators_table(self, conn: Connection) -> bool:
        return _is_there(self.postgres_url, "instigators", partial(super()._has_instigators_table, conn))

    def has_built_index(self, migration_name: str) -> bool:
        """Whether a migration of the database is done."""
        return _is_there(self.postgres_url, migration_name, partial(super().has_built_index, migration_name))


class EventStorage(DagsterPostgresStorage):
    """Dagster's storage in Postgres for `storage: custom:` in dagster.yaml: `BatchingEventLog`, whose connections runs and schedules share."""

    def __init__(self, postgres_url: str, should_autocreate_tables: bool, **keywords: Any) -> None:
        pool_waits.sleep_until_due()
        # Whether the tables are there is looked up once in a process.
        super().__init__(postgres_url, should_autocreate_tables and postgres_url not in _ENGINES, **keywords)
        provider = keywords.get("token_provider")
        events = BatchingEventLog(postgres_url, False, token_provider=provider)
        self._event_log_storage = events
        self._run_storage = RunStorage(postgres_url, False, token_provider=provider)
        self._schedule_storage = ScheduleStorage(postgres_url, False, token_provider=provider)
        self._run_storage._engine = self._schedule_storage._engine = events._engine

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """The storage that dagster.yaml configures."""
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
        )


def _shared_engine(postgres_url: str, token_provider: PgTokenProvider | None) -> Engine:
    """The kept connections of this process. More are opened and closed as they are needed, as without a pool."""
    if postgres_url not in _ENGINES:
        _ENGINES[postgres_url] = create_pg_engine(
            postgres_url,
            token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=KEPT_CONNECTIONS,
            max_overflow=_UNLIMITED,
            pool_pre_ping=True,
            pool_use_lifo=True,
        )
    return _ENGINES[postgres_url]


def _is_there(postgres_url: str, name: str, look_up: Callable[[], bool]) -> bool:
    """Whether the database at `postgres_url` has `name`: what is there once stays there."""
    if (postgres_url, name) not in _PRESENT and look_up():
        _PRESENT.add((postgres_url, name))
    return (postgres_url, name) in _PRESENT


def _is_of_partition(event: EventLogEntry) -> bool:
    """Whether the event is the result of a run's check for one partition: (asset, check, run, partition) is unique then."""
    is_evaluation = event.dagster_event_type is DagsterEventType.ASSET_CHECK_EVALUATION and bool(event.run_id)
    return is_evaluation and event.get_dagster_event().asset_check_evaluation_data.partition is not None


@contextmanager
def _left_open(connection: Connection) -> Iterator[Connection]:
    yield connection
