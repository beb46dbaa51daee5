"""Retention of the logs of runs: what Dagster wrote beside its history goes after an age, one transaction a run.

The history stays for good: decisions, deployments, data versions, staleness and the status of partitions are read from the events of
assets, whenever they were.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster_shared.serdes import deserialize_value, serialize_value
from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, or_, select, text, update
from sqlalchemy.engine import Connection

from mlops_assets.core.errors import StackError
from mlops_assets.runs.event_storage import BatchingEventLog

LOG_EXPIRED_TAG = "mlops/log_expired"
"""On a run whose log is gone: the day on which it was removed."""

_DETAILS = (
    dg.DagsterEventType.ENGINE_EVENT,
    dg.DagsterEventType.LOGS_CAPTURED,
    dg.DagsterEventType.RESOURCE_INIT_STARTED,
    dg.DagsterEventType.RESOURCE_INIT_SUCCESS,
    dg.DagsterEventType.RESOURCE_INIT_FAILURE,
    dg.DagsterEventType.STEP_WORKER_STARTING,
    dg.DagsterEventType.STEP_WORKER_STARTED,
    dg.DagsterEventType.STEP_INPUT,
    dg.DagsterEventType.STEP_OUTPUT,
    dg.DagsterEventType.LOADED_INPUT,
    dg.DagsterEventType.HANDLED_OUTPUT,
    dg.DagsterEventType.OBJECT_STORE_OPERATION,
)
"""The events that are part of a log and of no history. Starts, ends and failures of runs and steps stay, and whatever is not named here."""

_events, _runs, _tags, _checks = (
    table.c for table in (SqlEventLogStorageTable, RunsTable, RunTagsTable, AssetCheckExecutionsTable)
)

_IS_DETAIL = and_(
    _events.asset_key.is_(None),
    # Without a type it is a message.
    or_(_events.dagster_event_type.is_(None), _events.dagster_event_type.in_([kind.value for kind in _DETAILS])),
)


@dataclass(frozen=True)
class RunStorageSize:
    """The runs, the rows of the event log, and the bytes of Dagster's database."""

    runs: int
    events: int
    bytes: int


@dataclass
class RunLogMaintenance:
    """The result: the size before, and what was removed with the size after it, or what a dry run would remove.

    `expired` counts the runs whose log went, `events` what was in them. `deleted` are the runs that went as a whole.
    """

    before: RunStorageSize
    after: RunStorageSize | None = None
    expired: int = 0
    events: int = 0
    deleted: list[str] = field(default_factory=list)


def expire_run_logs(
    instance: dg.DagsterInstance, *, before: datetime, dry_run: bool, report: Callable[[str], None]
) -> RunLogMaintenance:
    """Remove the logs of runs that ended before a moment; runs that have no event of an asset and no result of a check go as a whole.

    A run in progress has no end and is left alone. Whoever is killed in between repeats nothing.

    Raises StackError when the instance stores its events elsewhere than in the platform's Postgres.
    """
    log = _event_log(instance)
    result = RunLogMaintenance(before=_measure(log))
    with log.index_connection() as connection:
        run_ids: list[str] = list(connection.execute(select(_runs.run_id).where(_is_due(before)).order_by(_runs.id)).scalars())
        report(f"Removing the logs of {len(run_ids):,} runs")
        if dry_run:
            _count(connection, before, result)
    if not dry_run:
        for run_id in run_ids:
            # Files first: the tag, with which the run is done, is of the last transaction.
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            with log.index_transaction() as transaction:
                is_history = transaction.execute(select(_has_history(run_id))).scalar_one()
                if is_history:
                    result.events += _expire(transaction, run_id)
                    result.expired += 1
            if not is_history:
                # The run last: without it nobody would find its events again.
                log.delete_events(run_id)
                instance.delete_run(run_id)
                result.deleted.append(run_id)
        result.after = _measure(log)
    return result


def _event_log(instance: dg.DagsterInstance) -> BatchingEventLog:
    log = instance.event_log_storage
    if not isinstance(log, BatchingEventLog):
        raise StackError(
            f"Dagster stores its events in {type(log).__name__}, of which maintenance removes nothing.",
            remedy="Keep `storage` in dagster.yaml as `mlops up` writes it.",
        )
    return log


def _measure(log: BatchingEventLog) -> RunStorageSize:
    with log.index_connection() as connection:
        sizes: Any = connection.execute(
            text("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM event_logs), pg_database_size(current_database())")
        ).one()
    return RunStorageSize(*sizes)


def _is_due(before: datetime) -> ColumnElement[bool]:
    """Whether a run ended before a moment and still has its log."""
    is_done = exists().where(_tags.run_id == _runs.run_id, _tags.key == LOG_EXPIRED_TAG)
    ended = [status.value for status in FINISHED_STATUSES]
    return and_(_runs.status.in_(ended), _runs.end_time < before.timestamp(), ~is_done)


def _has_history(run_id: object) -> ColumnElement[bool]:
    """Whether a run has an event of an asset, be it only planned, or a result of a check."""
    return or_(
        exists().where(_events.run_id == run_id, _events.asset_key.is_not(None)),
        exists().where(_checks.run_id == run_id),
    )


def _count(connection: Connection, before: datetime, result: RunLogMaintenance) -> None:
    due = select(_runs.run_id).where(_is_due(before))
    result.deleted = list(connection.execute(due.where(~_has_history(_runs.run_id)).order_by(_runs.id)).scalars())
    [result.expired] = connection.execute(
        select(func.count()).select_from(RunsTable).where(_is_due(before), _has_history(_runs.run_id))
    ).one()
    expiring = due.where(_has_history(_runs.run_id)).scalar_subquery()
    [result.events] = connection.execute(
        select(func.count()).select_from(SqlEventLogStorageTable).where(_IS_DETAIL, _events.run_id.in_(expiring))
    ).one()


def _expire(transaction: Connection, run_id: str) -> int:
    """Remove the log of a run and tag the run, whose time of change stays: whoever looks for runs that failed of late must not find it."""
    [body] = transaction.execute(select(_runs.run_body).where(_runs.run_id == run_id).with_for_update()).one()
    run = deserialize_value(str(body), dg.DagsterRun)
    tags = {LOG_EXPIRED_TAG: datetime.now(UTC).date().isoformat()}
    transaction.execute(
        update(RunsTable).where(_runs.run_id == run_id).values(run_body=serialize_value(run.with_tags({**run.tags, **tags})))
    )
    transaction.execute(insert(RunTagsTable), [{"run_id": run_id, "key": key, "value": value} for key, value in tags.items()])
    return transaction.execute(delete(SqlEventLogStorageTable).where(_events.run_id == run_id, _IS_DETAIL)).rowcount
