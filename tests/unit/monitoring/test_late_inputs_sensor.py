"""The sensor of late inputs on a Dagster instance of its own: who is told of which source, when, and how often."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import late_inputs
import pytest

from mlops_assets.core.keys import stage_key
from mlops_assets.monitoring.late_inputs_sensor import tell_late_inputs
from mlops_assets.predictions.input_arrival import INPUTS_ARRIVED, check_inputs_arrived
from mlops_assets.stages.inputs import SolutionInputs

INPUTS = late_inputs.INPUTS
DAYS = INPUTS.partitions
SPINE, VIEW, PREDICTIONS = INPUTS.spine_key, INPUTS.view_key(INPUTS.views[0]), stage_key(INPUTS.name, "predictions")
RAW, STAGING = dg.AssetKey(["raw", "load"]), dg.AssetKey(["staging", "load"])
DAY, NEXT_DAY = "2020-03-05", "2020-03-06"
LATE = replace(INPUTS, views=(replace(INPUTS.views[0], may_be_late=timedelta(hours=6)),))


class World:
    """A raw table, its staging table, a view that reads the day before too, a spine of rows of another source, and predictions."""

    def __init__(self, instance: dg.DagsterInstance, inputs: SolutionInputs):
        self.instance, self.inputs = instance, inputs
        history = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)
        checks = [INPUTS_ARRIVED.partitioned_spec(PREDICTIONS, DAYS)]

        def asset(key: dg.AssetKey, *deps: dg.AssetKey | dg.AssetDep) -> dg.AssetsDefinition:
            @dg.asset(key=key, deps=deps, partitions_def=DAYS, check_specs=checks if key == PREDICTIONS else None)
            def table() -> dg.MaterializeResult:
                return dg.MaterializeResult()

            return table

        view = asset(VIEW, dg.AssetDep(STAGING, partition_mapping=history))
        self.definitions = dg.Definitions([asset(RAW), asset(STAGING, RAW), view, asset(SPINE), asset(PREDICTIONS, VIEW, SPINE)])
        self.graph = self.definitions.resolve_asset_graph()
        self.cursor: str | None = None
        self.instance.report_runless_asset_event(dg.AssetMaterialization(stage_key(inputs.name, "deployment")))

    def arrive(self, *keys: dg.AssetKey, day: str = DAY) -> None:
        for key in keys:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))

    def tick(self, hours: float = 0) -> str:
        """What a tick so many hours from now finds."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        found = tell_late_inputs(
            context, self.graph, {self.inputs.name: self.inputs}, now=datetime.now(UTC) + timedelta(hours=hours)
        )
        self.cursor = context.cursor
        return found

    @property
    def told(self) -> list[tuple[str | None, str | None]]:
        """The failed results of the check, oldest first: partition and description."""
        key = dg.AssetCheckKey(PREDICTIONS, INPUTS_ARRIVED.name)
        history = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        return [(record.partition, record.evaluation.description) for record in reversed(history) if record.evaluation]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_the_owner_is_told_once_which_source_predictions_wait_for(instance: dg.DagsterInstance) -> None:
    world = World(instance, INPUTS)
    world.tick()
    world.arrive(SPINE)
    assert world.tick(hours=23) == "1 partitions wait for an input"
    assert world.told == []
    words = "raw/load of 2020-03-04 has not come: predictions wait for features/load of 2020-03-05. Load it, or see `may_be_late`"
    assert world.tick(hours=25) == f"{DAY}: {words}"
    # Corrected rows are no reason to tell it again.
    world.arrive(SPINE)
    world.tick(hours=26)
    world.tick(hours=60)
    assert world.told == [(DAY, words)]


def test_a_view_that_may_be_late_ends_the_wait_after_the_time_in_the_yaml(instance: dg.DagsterInstance) -> None:
    world = World(instance, LATE)
    world.tick()
    world.arrive(RAW, STAGING, day="2020-03-04")
    world.arrive(SPINE)
    world.tick(hours=5)
    assert world.told == []
    world.tick(hours=7)
    assert world.told == [
        (
            DAY,
            "raw/load of 2020-03-05 has not come: predictions wait no longer for features/load of 2020-03-05 and read older values",
        )
    ]


def test_rows_to_predict_that_do_not_come_are_told_too(instance: dg.DagsterInstance) -> None:
    world = World(instance, LATE)
    world.tick()
    world.arrive(VIEW)
    world.tick(hours=7)
    assert world.told == []
    world.tick(hours=25)
    [(day, words)] = world.told
    assert (day, str(words).partition(":")[0]) == (DAY, f"{SPINE.to_user_string()} of {DAY} has not come")


def test_what_comes_in_time_or_was_predicted_is_not_told(instance: dg.DagsterInstance) -> None:
    world = World(instance, LATE)
    world.tick()
    world.arrive(SPINE)
    world.arrive(SPINE, day=NEXT_DAY)
    world.tick(hours=5)
    world.arrive(VIEW)
    world.arrive(PREDICTIONS, day=NEXT_DAY)
    assert world.tick(hours=30) == "0 partitions wait for an input"
    assert world.told == []


def test_what_came_before_the_first_tick_is_no_news(instance: dg.DagsterInstance) -> None:
    world = World(instance, INPUTS)
    world.arrive(SPINE)
    world.tick()
    world.tick(hours=48)
    assert world.told == []


def test_predictions_name_the_input_that_they_were_made_without(instance: dg.DagsterInstance) -> None:
    world = World(instance, LATE)
    world.arrive(SPINE, VIEW)
    world.arrive(SPINE, day=NEXT_DAY)
    first, second = check_inputs_arrived(instance, world.graph, LATE, keys=[DAY, NEXT_DAY])
    assert (first.partition, first.passed, first.description) == (DAY, True, None)
    assert (second.partition, second.passed) == (NEXT_DAY, False)
    assert second.description == "predicted without features/load of 2020-03-06. Once it has come: mlops score late --list"
