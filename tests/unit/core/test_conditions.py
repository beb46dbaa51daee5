"""The automation conditions on a Dagster instance of its own: what follows what, and what is left alone."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from mlops_assets.core.conditions import AFTER_A_MODEL, FOLLOW, PREDICT_ONCE, build_conditions_sensors
from mlops_assets.core.keys import stage_tags

DAYS = dg.DailyPartitionsDefinition("2013-08-01", end_date="2013-08-15")
WEEKS = dg.WeeklyPartitionsDefinition("2013-07-29", day_offset=1, end_date="2013-08-19")
SOLUTION = "problem"


class Graph:
    """Raw rows, a feature, predictions and a weekly report, as the platform wires them."""

    def __init__(self, instance: dg.DagsterInstance):
        self.instance = instance
        self.rows_are_good = True
        raw_check = dg.AssetCheckSpec("row_count", asset="raw", blocking=True)

        @dg.asset(partitions_def=DAYS, check_specs=[raw_check], backfill_policy=dg.BackfillPolicy.single_run())
        def raw() -> dg.MaterializeResult:
            return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=self.rows_are_good)])

        @dg.asset(partitions_def=DAYS, deps=[raw], kinds={"dbt"}, automation_condition=FOLLOW)
        def feature() -> None: ...

        @dg.asset(partitions_def=DAYS, tags=stage_tags(SOLUTION, "deployment"))
        def deployment() -> None: ...

        @dg.asset(
            partitions_def=DAYS,
            deps=[feature, dg.AssetDep(deployment, partition_mapping=dg.AllPartitionMapping())],
            tags=stage_tags(SOLUTION, "predictions"),
            automation_condition=PREDICT_ONCE,
        )
        def predictions() -> None: ...

        @dg.asset(
            partitions_def=WEEKS,
            deps=[predictions],
            tags=stage_tags(SOLUTION, "drift_report"),
            automation_condition=AFTER_A_MODEL,
        )
        def drift_report() -> None: ...

        self.definitions = dg.Definitions([raw, feature, deployment, predictions, drift_report])
        self.cursors: dict[str, Any] = {}

    def materialize(self, key: str, *days: str) -> None:
        for day in days:
            job = self.definitions.resolve_implicit_global_asset_job_def()
            job.execute_in_process(
                instance=self.instance, asset_selection=[dg.AssetKey(key)], partition_key=day, raise_on_error=False
            )

    def report(self, key: str, *days: str) -> None:
        """As if `key` had been materialized, without its checks: faster than a run."""
        for day in days:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))

    def tick(self) -> dict[str, list[str]]:
        """What one tick of each sensor asks for."""
        asked: dict[str, list[str]] = {}
        for sensor in build_conditions_sensors():
            result = dg.evaluate_automation_conditions(
                defs=self.definitions,
                instance=self.instance,
                cursor=self.cursors.get(sensor.name),
                asset_selection=sensor.asset_selection,
            )
            self.cursors[sensor.name] = result.cursor
            for key in ("feature", "predictions", "drift_report"):
                asked.setdefault(key, []).extend(day for day in result.get_requested_partitions(dg.AssetKey(key)) if day)
        return {key: sorted(days) for key, days in asked.items() if days}


@pytest.fixture
def graph() -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(instance)
        graph.report("deployment", "2013-08-01")
        yield graph


def test_what_was_there_when_automation_was_switched_on_is_left_alone(graph: Graph) -> None:
    graph.materialize("raw", "2013-08-01")
    assert graph.tick() == {}
    assert graph.tick() == {}


def test_a_new_day_goes_down_to_the_predictions(graph: Graph) -> None:
    graph.tick()
    graph.materialize("raw", "2013-08-05")
    assert graph.tick() == {"feature": ["2013-08-05"]}
    graph.report("feature", "2013-08-05")
    assert graph.tick() == {"predictions": ["2013-08-05"]}


def test_without_a_champion_nothing_is_predicted() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(instance)
        graph.tick()
        graph.materialize("raw", "2013-08-05")
        assert graph.tick() == {"feature": ["2013-08-05"]}
        graph.report("feature", "2013-08-05")
        assert graph.tick() == {}


def test_a_failed_blocking_check_stops_what_follows_until_it_is_repaired(graph: Graph) -> None:
    graph.tick()
    graph.rows_are_good = False
    graph.materialize("raw", "2013-08-05")
    assert graph.tick() == {}
    graph.rows_are_good = True
    graph.materialize("raw", "2013-08-05")
    assert graph.tick() == {"feature": ["2013-08-05"]}


def test_what_was_predicted_stays_as_it_was(graph: Graph) -> None:
    graph.materialize("raw", "2013-08-05")
    graph.report("feature", "2013-08-05")
    graph.report("predictions", "2013-08-05")
    graph.tick()
    graph.materialize("raw", "2013-08-05")
    assert graph.tick() == {"feature": ["2013-08-05"]}
    graph.report("deployment", "2013-08-06")
    assert "predictions" not in graph.tick()


def test_a_report_waits_for_the_last_day_of_its_window(graph: Graph) -> None:
    week = [f"2013-08-{day:02}" for day in range(5, 12)]
    for key in ("raw", "feature"):
        graph.report(key, *week)
    graph.report("predictions", *week[:-1])
    graph.tick()
    assert graph.tick() == {}
    graph.report("predictions", week[-1])
    assert graph.tick() == {"drift_report": ["2013-08-05"]}
