"""Schedules of solutions: what a tick trains."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.monitoring.retraining_schedule import build_retraining_schedules
from mlops_assets.schema.solution import Solution

SOLUTION = Path(__file__).parents[2] / "fixtures" / "solutions" / "valid" / "every_field.yaml"
NEW_YORK = ZoneInfo("America/New_York")


def requests(schedule: dg.ScheduleDefinition, tick: datetime, instance: dg.DagsterInstance) -> list[dg.RunRequest] | str:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=tick)
    yielded = list(schedule(context))
    launched = [each for each in yielded if isinstance(each, dg.RunRequest)]
    return launched or str(yielded[0].skip_message)


@pytest.fixture(scope="module")
def training() -> dg.ScheduleDefinition:
    declared = Solution.model_validate(yaml.safe_load(SOLUTION.read_text())["attributes"])
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    [schedule] = build_retraining_schedules(resolve_inputs(declared, registry))
    return schedule


def materialize(instance: dg.DagsterInstance, *partitions: str) -> None:
    for partition in partitions:
        key = dg.AssetKey(["flight_delay", "spine"])
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))


def test_a_declared_schedule_runs(training: dg.ScheduleDefinition) -> None:
    assert training.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (training.job_name, training.execution_timezone) == ("late_arrival_training", "America/New_York")


def test_a_tick_trains_on_all_data_there_is(training: dg.ScheduleDefinition) -> None:
    tick = datetime(2013, 9, 2, 6, tzinfo=NEW_YORK)
    with dg.instance_for_test() as instance:
        assert requests(training, tick, instance) == "No partition of flight_delay.spine is there yet."
        materialize(instance, "2013-07-01", "2013-07-08")
        [request] = requests(training, tick, instance)
        assert isinstance(request, dg.RunRequest)
        assert request.partition_key == "2013-07-15"
        materialize(instance, "2013-08-26")
        [newest] = requests(training, tick, instance)
        # The window after the newest data has not ended.
        assert isinstance(newest, dg.RunRequest)
        assert newest.partition_key == "2013-08-26"
        run = create_run_for_test(instance, job_name="late_arrival_training", status=dg.DagsterRunStatus.STARTED)
        assert requests(training, tick, instance) == f"The training {run.run_id} is running."
