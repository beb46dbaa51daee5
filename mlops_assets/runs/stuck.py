"""Runs and pools that do not go on, with the runs they wait for: for `mlops status` and for notifications."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from mlops_assets.runs.recovery import UNWATCHED, Action, elapsed_seconds, has_workers, run_action, run_name, worker_files
from mlops_assets.runs.slots import SLOTS_TAG, WORK, slots

QUEUED_SECONDS = 60.0
"""A run that waits longer than this is shown: the daemon looks at the queue every two seconds."""


@dataclass(frozen=True)
class Blockage:
    """A run or a pool that does not go on: since when, and why. `behind` are the runs that it waits for."""

    kind: str
    run_id: str
    name: str
    seconds: float
    reason: str
    behind: tuple[str, ...]


@dataclass(frozen=True)
class Queue:
    """The runs that wait and those that are executed, oldest first, and by pool the runs that hold it."""

    queued: Sequence[RunRecord]
    executed: Sequence[RunRecord]
    holders: Mapping[str, Sequence[str]]


def find_blockages(instance: DagsterInstance) -> list[Blockage]:
    """The runs without a worker, the runs that have waited for long, and the pools that ended runs hold."""
    records = instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.QUEUED, *UNWATCHED]), ascending=True)
    storage = instance.event_log_storage
    pools = storage.get_concurrency_infos(sorted(storage.get_concurrency_keys()))
    queue = Queue(
        queued=[record for record in records if record.dagster_run.status is DagsterRunStatus.QUEUED],
        executed=[record for record in records if record.dagster_run.status is not DagsterRunStatus.QUEUED],
        holders={name: sorted({slot.run_id for slot in pool.claimed_slots}) for name, pool in pools.items()},
    )
    blockages = []
    for record in queue.executed if has_workers(instance) else ():
        if (action := run_action(record, worker_files(instance), served=True)) is not Action.KEEP:
            reason = "does not end and will be killed" if action is Action.KILL else "has no worker"
            blockages.append(_stuck("worker", record, reason, ()))
    for record in queue.queued:
        if elapsed_seconds(record.update_timestamp.timestamp()) > QUEUED_SECONDS:
            reason, behind = queue_reason(record, queue)
            blockages.append(_stuck("queued", record, reason, behind))
    return [*blockages, *_held_by_the_dead(queue)]


def queue_reason(record: RunRecord, queue: Queue) -> tuple[str, tuple[str, ...]]:
    """Return the reason why a queued run is not executed, and the runs that it waits for."""
    run = record.dagster_run
    name = run.tags.get(SLOTS_TAG, WORK)
    holding = [holder.dagster_run.run_id for holder in queue.executed if holder.dagster_run.tags.get(SLOTS_TAG, WORK) == name]
    if len(holding) >= slots()[name].count:
        return f"all {slots()[name].count} slots of {name} are taken", tuple(holding)
    pools = sorted(run.run_op_concurrency.root_key_counts) if run.run_op_concurrency else []
    held = [pool for pool in pools if queue.holders.get(pool)]
    if held:
        holders = dict.fromkeys(run_id for pool in held for run_id in queue.holders[pool])
        return f"the pool {', '.join(held)} is taken", tuple(holders)
    return "the daemon does not start it: mlops logs dagster-daemon", ()


def _stuck(kind: str, record: RunRecord, reason: str, behind: tuple[str, ...]) -> Blockage:
    seconds = round(elapsed_seconds(record.update_timestamp.timestamp()), 1)
    return Blockage(kind, record.dagster_run.run_id, run_name(record), seconds, reason, behind)


def _held_by_the_dead(queue: Queue) -> Iterator[Blockage]:
    living = {record.dagster_run.run_id for record in (*queue.queued, *queue.executed)}
    for pool, holders in queue.holders.items():
        for run_id in holders:
            if run_id not in living:
                yield Blockage("pool", run_id, pool, 0.0, f"the pool {pool} is held by a run that has ended", ())
