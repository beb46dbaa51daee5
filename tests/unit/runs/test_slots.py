"""Slots: how many there are, and which run takes one next."""

from collections import Counter

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from run_instances import REMOTE

from mlops_assets.components.project import project_definitions
from mlops_assets.runs.slots import CHAMPION, DBT, PREDICTION_LOG, SLOTS_TAG, VERSION_CHECK, WORK, slots, slots_of


def test_steps_of_several_kinds_are_work() -> None:
    assert slots_of([{SLOTS_TAG: DBT}, {SLOTS_TAG: DBT}]) == DBT
    assert slots_of([{SLOTS_TAG: DBT}, {}]) == WORK
    assert slots_of([{SLOTS_TAG: PREDICTION_LOG}, {SLOTS_TAG: CHAMPION}]) == WORK
    assert slots_of([]) == WORK


def test_work_that_hangs_holds_up_work_alone(instance: DagsterInstance) -> None:
    """The queue of Dagster itself decides, over more runs that hang than there are slots of any kind."""

    def create(kind: str, status: DagsterRunStatus) -> str:
        return create_run_for_test(instance, status=status, remote_job_origin=REMOTE, tags=slots()[kind].tags(kind)).run_id

    for _ in range(slots()[WORK].count):
        create(WORK, DagsterRunStatus.STARTED)
    queued = [create(kind, DagsterRunStatus.QUEUED) for kind in (WORK, WORK, PREDICTION_LOG, VERSION_CHECK, DBT, CHAMPION)]
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=2)
    taken = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)
    assert {run.run_id for run in taken} == set(queued[2:])
    assert taken[0].run_id == queued[-1], "the switch of a champion comes first"


def test_a_kind_has_no_more_than_its_slots(instance: DagsterInstance) -> None:
    for kind in slots():
        for _ in range(slots()[kind].count + 2):
            create_run_for_test(instance, status=DagsterRunStatus.QUEUED, remote_job_origin=REMOTE, tags=slots()[kind].tags(kind))
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=2)
    taken = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)
    assert Counter(run.tags[SLOTS_TAG] for run in taken) == {name: kind.count for name, kind in slots().items()}


def test_every_asset_of_the_platform_is_of_the_kind_that_it_should_be() -> None:
    """Read from the loaded definitions: what is switched, logged and checked has slots of its own, and dbt its one."""
    graph = project_definitions().resolve_asset_graph()
    kinds: dict[str, set[str]] = {}
    for key in graph.executable_asset_keys:
        kind = (graph.get(key).assets_def.node_def.tags or {}).get(SLOTS_TAG, WORK)
        kinds.setdefault(kind, set()).add(key.path[-1])
    assert kinds[CHAMPION] == {"deployment", "segment_deployment", "challenger"}
    assert kinds[PREDICTION_LOG] == {"prediction_log", "shadow_predictions"}
    assert {"spine", "person"} <= kinds[DBT]
    assert {"training_dataset", "model", "predictions", "monitoring_report"} <= kinds[WORK]
