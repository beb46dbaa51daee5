"""Slots: what a run does decides which it has, whoever asks for the run, and how many there are."""

from collections import Counter
from pathlib import Path

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.execution.api import create_execution_plan
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from run_instances import CODE, REMOTE

from mlops_assets import defs
from mlops_assets.components.loading import load_folders
from mlops_assets.runs.slots import CHAMPION, DBT, PREDICTION_LOG, SLOTS_TAG, VERSION_CHECK, WORK, slots, slots_of


@dg.asset(op_tags={SLOTS_TAG: CHAMPION})
def deployment() -> None: ...


@dg.asset(deps=[deployment])
def predictions() -> None: ...


@dg.asset_check(asset=deployment, op_tags={SLOTS_TAG: VERSION_CHECK})
def served_version() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def submitted(instance: DagsterInstance, selection: dg.AssetSelection, tags: dict[str, str]) -> dict[str, str]:
    """The tags of a run of the selection once it is queued."""
    definitions = dg.Definitions(
        assets=[deployment, predictions], asset_checks=[served_version], jobs=[dg.define_asset_job("some", selection=selection)]
    )
    job = definitions.resolve_job_def("some")
    plan = create_execution_plan(job)
    run = instance.create_run_for_job(job, execution_plan=plan, tags=tags, remote_job_origin=REMOTE, job_code_origin=CODE)
    queued = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # type: ignore[arg-type]
    assert queued.status is DagsterRunStatus.QUEUED
    return dict(queued.tags)


def test_a_run_is_classed_by_what_it_executes(instance: DagsterInstance) -> None:
    assert submitted(instance, dg.AssetSelection.assets(deployment).without_checks(), {})[SLOTS_TAG] == CHAMPION
    assert submitted(instance, dg.AssetSelection.checks(served_version), {})[SLOTS_TAG] == VERSION_CHECK
    assert submitted(instance, dg.AssetSelection.assets(deployment, predictions), {})[SLOTS_TAG] == WORK


def test_nobody_takes_the_slots_of_another_kind_by_a_tag(instance: DagsterInstance) -> None:
    tags = submitted(instance, dg.AssetSelection.assets(predictions), {SLOTS_TAG: CHAMPION, "dagster/priority": "99"})
    assert (tags[SLOTS_TAG], tags["dagster/priority"]) == (WORK, "0")


def test_the_switch_of_a_champion_comes_first(instance: DagsterInstance) -> None:
    tags = submitted(instance, dg.AssetSelection.assets(deployment).without_checks(), {})
    assert int(tags["dagster/priority"]) > 0
    assert int(tags["dagster/max_runtime"]) > 0


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
    graph = load_folders("mlops_assets.defs", Path(defs.__path__[0])).resolve_asset_graph()
    kinds: dict[str, set[str]] = {}
    for key in graph.executable_asset_keys:
        kind = (graph.get(key).assets_def.node_def.tags or {}).get(SLOTS_TAG, WORK)
        kinds.setdefault(kind, set()).add(key.path[-1])
    assert kinds[CHAMPION] == {"deployment", "segment_deployment", "challenger"}
    assert kinds[PREDICTION_LOG] == {"prediction_log"}
    assert {"spine", "person"} <= kinds[DBT]
    assert {"training_dataset", "model", "predictions", "monitoring_report"} <= kinds[WORK]
