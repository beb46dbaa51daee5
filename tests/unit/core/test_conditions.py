"""The automation conditions on a Dagster instance of its own: what follows what, and what is left alone."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from mlops_assets.core.conditions import (
    ON_NEW_INPUTS,
    ON_NEW_OUTCOMES,
    ON_NEW_PREDICTIONS,
    ON_NEW_REPORTS,
    build_conditions_sensors,
    on_missing_predictions,
)
from mlops_assets.core.keys import stage_tags

DAYS = dg.DailyPartitionsDefinition("2013-08-01", end_date="2013-08-15")
WEEKS = dg.WeeklyPartitionsDefinition("2013-07-29", day_offset=1, end_date="2013-08-19")
SOLUTION = "problem"


class Graph:
    """Raw rows, a feature, predictions, a weekly report and the decision on it, as the platform wires them."""

    def __init__(self, instance: dg.DagsterInstance):
        self.instance = instance
        self.rows_are_good = True
        self.rows: str | None = None
        """What `raw` holds. None: other rows every time."""
        self.reported = 0
        raw_check = dg.AssetCheckSpec("row_count", asset="raw", blocking=True)

        @dg.asset(partitions_def=DAYS, check_specs=[raw_check], backfill_policy=dg.BackfillPolicy.single_run())
        def raw() -> dg.MaterializeResult:
            version = dg.DataVersion(self.rows) if self.rows else None
            return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=self.rows_are_good)], data_version=version)

        @dg.asset(partitions_def=DAYS, deps=[raw], kinds={"dbt"}, automation_condition=ON_NEW_INPUTS)
        def feature() -> None: ...

        @dg.asset(partitions_def=DAYS, tags=stage_tags(SOLUTION, "deployment"))
        def deployment() -> None: ...

        @dg.asset(partitions_def=DAYS, tags=stage_tags(SOLUTION, "training_dataset"))
        def training_dataset() -> None: ...

        @dg.asset(partitions_def=DAYS, deps=[training_dataset], tags=stage_tags(SOLUTION, "evaluation"))
        def evaluation() -> None: ...

        @dg.asset(
            partitions_def=DAYS,
            deps=[feature, dg.AssetDep(deployment, partition_mapping=dg.AllPartitionMapping())],
            tags=stage_tags(SOLUTION, "predictions"),
            check_specs=[dg.AssetCheckSpec("complete", asset="predictions", blocking=True, partitions_def=DAYS)],
            automation_condition=on_missing_predictions([]),
        )
        def predictions() -> dg.MaterializeResult:
            return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

        @dg.asset(partitions_def=DAYS, deps=[feature], tags=stage_tags(SOLUTION, "prediction_log"))
        def prediction_log() -> None: ...

        @dg.asset(
            partitions_def=DAYS,
            deps=[predictions, prediction_log, feature],
            tags=stage_tags(SOLUTION, "outcomes"),
            automation_condition=ON_NEW_PREDICTIONS,
        )
        def outcomes() -> None: ...

        @dg.asset(
            partitions_def=WEEKS,
            deps=[predictions, prediction_log, outcomes],
            tags=stage_tags(SOLUTION, "drift_report"),
            automation_condition=ON_NEW_OUTCOMES,
        )
        def drift_report() -> None: ...

        @dg.asset(
            partitions_def=WEEKS,
            deps=[
                drift_report,
                predictions,
                prediction_log,
                outcomes,
                *(
                    dg.AssetDep(training, partition_mapping=dg.AllPartitionMapping())
                    for training in (training_dataset, evaluation, deployment)
                ),
            ],
            tags=stage_tags(SOLUTION, "retraining_decision"),
            automation_condition=ON_NEW_REPORTS,
        )
        def retraining_decision() -> None: ...

        self.definitions = dg.Definitions(
            [
                raw,
                feature,
                training_dataset,
                evaluation,
                deployment,
                predictions,
                prediction_log,
                outcomes,
                drift_report,
                retraining_decision,
            ]
        )
        self.cursors: dict[str, Any] = {}

    def materialize(self, key: str, *days: str) -> None:
        for day in days:
            job = self.definitions.resolve_implicit_global_asset_job_def()
            job.execute_in_process(
                instance=self.instance, asset_selection=[dg.AssetKey(key)], partition_key=day, raise_on_error=False
            )

    def report(self, key: str, *days: str) -> None:
        """As if `key` had been materialized with other rows than before, without its checks: faster than a run."""
        for day in days:
            self.reported += 1
            rows = {DATA_VERSION_TAG: f"rows {self.reported}"}
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, tags=rows))

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
            for key in ("feature", "predictions", "outcomes", "drift_report", "retraining_decision"):
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
    assert graph.tick() == {"predictions": ["2013-08-05"], "outcomes": ["2013-08-05"]}


def test_an_input_that_was_written_again_as_it_was_makes_nothing_follow_but_what_is_missing(graph: Graph) -> None:
    day, other = "2013-08-05", "2013-08-06"
    graph.rows = "rows"
    graph.materialize("raw", day, other)
    graph.report("feature", day)
    graph.tick()
    graph.materialize("raw", day, other)
    assert graph.tick() == {"feature": [other]}
    graph.rows = "corrected rows"
    graph.materialize("raw", day)
    assert graph.tick() == {"feature": [day]}


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


WEEK = tuple(f"2013-08-{day:02}" for day in range(5, 12))


def test_a_report_waits_for_the_last_day_of_its_window(graph: Graph) -> None:
    for key in ("raw", "feature"):
        graph.report(key, *WEEK[:-1])
    graph.materialize("predictions", *WEEK[:-1])
    graph.tick()
    graph.report("outcomes", *WEEK[:-1])
    assert graph.tick() == {}
    # The last day comes: the report waits for what the batch will predict of it, and for the outcomes of that.
    graph.report("raw", WEEK[-1])
    graph.tick()
    graph.report("feature", WEEK[-1])
    assert graph.tick() == {"predictions": [WEEK[-1]], "outcomes": [WEEK[-1]]}
    graph.materialize("predictions", WEEK[-1])
    assert "drift_report" not in graph.tick()
    graph.report("outcomes", WEEK[-1])
    assert graph.tick() == {"drift_report": [WEEK[0]], "retraining_decision": [WEEK[0]]}
    assert graph.tick() == {}


def test_a_training_for_an_earlier_date_starts_no_decision_about_a_later_window(graph: Graph) -> None:
    for key in ("raw", "feature", "predictions", "outcomes"):
        graph.report(key, *WEEK)
    graph.report("drift_report", WEEK[0])
    graph.report("retraining_decision", WEEK[0])
    graph.tick()
    for stage in ("training_dataset", "evaluation", "deployment"):
        graph.report(stage, "2013-08-02")
        assert graph.tick() == {}
    # What the decision follows is its report.
    graph.report("drift_report", WEEK[0])
    assert graph.tick() == {"retraining_decision": [WEEK[0]]}


def test_what_a_server_answered_reaches_the_decision_on_its_window_without_any_batch(graph: Graph) -> None:
    for key in ("raw", "feature"):
        graph.report(key, *WEEK)
    graph.tick()
    graph.report("prediction_log", WEEK[2])
    assert graph.tick() == {"outcomes": [WEEK[2]]}
    assert graph.tick() == {}
    graph.report("outcomes", WEEK[2])
    assert graph.tick() == {"drift_report": [WEEK[0]], "retraining_decision": [WEEK[0]]}
    assert graph.tick() == {}
    # It answers again: the same way once more. The decision reads the answers, and waits for the report on them.
    graph.report("drift_report", WEEK[0])
    graph.report("retraining_decision", WEEK[0])
    graph.tick()
    graph.report("prediction_log", WEEK[2])
    assert graph.tick() == {"outcomes": [WEEK[2]]}
    graph.report("outcomes", WEEK[2])
    assert graph.tick() == {"drift_report": [WEEK[0]], "retraining_decision": [WEEK[0]]}


def test_an_answer_for_a_window_that_is_not_over_waits_for_its_last_day(graph: Graph) -> None:
    for key in ("raw", "feature"):
        graph.report(key, *WEEK[:3])
    graph.tick()
    graph.report("prediction_log", WEEK[2], WEEK[4])
    # The label of the later one is of a day that has not come.
    assert graph.tick() == {"outcomes": [WEEK[2]]}
    graph.report("outcomes", WEEK[2])
    assert graph.tick() == {}


def test_a_batch_whose_checks_failed_is_not_evaluated(graph: Graph) -> None:
    for key in ("raw", "feature"):
        graph.report(key, *WEEK)
    graph.tick()
    graph.report("predictions", WEEK[2])
    assert graph.tick() == {}


def test_one_day_whose_blocking_check_failed_stops_the_window_and_no_other_day() -> None:
    check = dg.AssetCheckSpec("complete", asset="daily", blocking=True, partitions_def=DAYS)
    good = {"2013-08-05": True}

    @dg.asset(partitions_def=DAYS, check_specs=[check])
    def daily(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=good.get(context.partition_key, True))])

    @dg.asset(partitions_def=DAYS, deps=[daily], automation_condition=ON_NEW_INPUTS)
    def next_daily() -> None: ...

    @dg.asset(partitions_def=WEEKS, deps=[daily], automation_condition=ON_NEW_INPUTS)
    def weekly() -> None: ...

    definitions = dg.Definitions([daily, next_daily, weekly])
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = dg.evaluate_automation_conditions(definitions, instance).cursor

        def write(*days: str) -> None:
            for day in days:
                dg.materialize([daily], instance=instance, partition_key=day, raise_on_error=False)

        def tick() -> tuple[set[str | None], set[str | None]]:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor = result.cursor
            return tuple(set(result.get_requested_partitions(asset.key)) for asset in (next_daily, weekly))  # type: ignore[return-value]

        good["2013-08-05"] = False
        write(*WEEK)
        assert tick() == (set(WEEK) - {"2013-08-05"}, set())
        good["2013-08-05"] = True
        write("2013-08-05")
        assert tick() == ({"2013-08-05"}, {"2013-08-05"})


@pytest.mark.parametrize("may_be_late", [False, True])
def test_predictions_wait_for_a_missing_input_unless_it_may_be_late_and_the_wait_is_over(may_be_late: bool) -> None:
    @dg.asset(partitions_def=DAYS)
    def spine() -> None: ...

    @dg.asset(partitions_def=DAYS)
    def weather() -> None: ...

    @dg.asset(partitions_def=DAYS)
    def other() -> None: ...

    @dg.asset(partitions_def=DAYS, tags=stage_tags(SOLUTION, "deployment"))
    def deployment() -> None: ...

    @dg.asset(
        partitions_def=DAYS,
        deps=[spine, weather, other, dg.AssetDep(deployment, partition_mapping=dg.AllPartitionMapping())],
        tags=stage_tags(SOLUTION, "predictions"),
        check_specs=[dg.AssetCheckSpec("inputs_arrived", asset="predictions", partitions_def=DAYS)],
        automation_condition=on_missing_predictions([dg.AssetKey("weather")] if may_be_late else []),
    )
    def predictions() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

    definitions = dg.Definitions([spine, weather, other, deployment, predictions])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("deployment", partition="2013-08-01"))
        cursor = dg.evaluate_automation_conditions(definitions, instance).cursor

        def arrive(key: str, *days: str) -> None:
            for day in days:
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))

        def asked() -> list[str]:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor = result.cursor
            return sorted(filter(None, result.get_requested_partitions(dg.AssetKey("predictions"))))

        arrive("spine", "2013-08-05", "2013-08-06", "2013-08-07")
        arrive("other", "2013-08-05", "2013-08-06")
        assert asked() == []
        for day in ("2013-08-05", "2013-08-07"):
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(dg.AssetKey("predictions"), "inputs_arrived", passed=False, metadata={}, partition=day)
            )
        # The wait for the 6th is not over, and the 7th lacks another input.
        assert asked() == (["2013-08-05"] if may_be_late else [])
        assert asked() == []
        arrive("weather", "2013-08-06")
        assert asked() == ["2013-08-06"]
