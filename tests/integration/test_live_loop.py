"""The loop of a clinic on a real lake and registry: predictions, labels, reports, the decision, and the run that the sensor asks for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import inprocess
import pytest
from clinic_chain import STAGES, Clinic, Registry
from recorded_reads import recorded_reads, undeclared_and_unread
from registry_database import new_registry_url

from mlops_assets.clients.signatures import Signer
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring.monitor import monitors_of
from mlops_assets.monitoring.monitoring_report import build_monitoring_report
from mlops_assets.monitoring.report_asset import build_report
from mlops_assets.monitoring.retraining_decision import build_retraining_decision
from mlops_assets.monitoring.retraining_sensor import build_retraining_sensor
from mlops_assets.predictions.outcomes import build_outcomes
from mlops_assets.predictions.predictions import build_predictions
from mlops_assets.schema.monitoring_section import Retraining

DATA, REPORTS = ("predictions", "outcomes"), ("drift_report", "performance_report", "retraining_decision")
TRAINED = "2020-03-01"
WEEKS = {"2020-03-02": "2020-03-08", "2020-03-09": "2020-03-15", "2020-03-16": "2020-03-22", "2020-03-23": "2020-03-29"}
"""First and last day of each window."""


class Loop(Clinic):
    """The clinic with its scoring and monitoring stages. After a training none follows for 60 days."""

    def build(self) -> None:
        retraining = Retraining(cooldown="60d", max_age=None)
        self.inputs = replace(self.inputs, solution=self.inputs.solution.model_copy(update={"retraining": retraining}))
        builders = (
            build_predictions,
            build_outcomes,
            *(partial(build_report, of_solution=monitor) for monitor in monitors_of(self.inputs.solution)),
            build_monitoring_report,
            build_retraining_decision,
        )
        self.assets += [build(self.inputs) for build in builders]
        self.cursor: str | None = None

    def pass_week(self, first: str) -> dict[str, Any]:
        """Predict the days of a week, report on it, and return its decision as the table has it."""
        for stages, last in ((DATA, WEEKS[first]), (REPORTS, first)):
            keys = [f"{self.name}/{stage}" for stage in stages]
            with recorded_reads(self.reads):
                result = inprocess.materialize(
                    self.assets, keys, first=first, last=last, resources=self.resources, instance=self.instance
                )
            assert result.success, inprocess.failures(result)
        [row] = self.query(f"SELECT * FROM {{name}}.retraining_decision WHERE window_start = DATE '{first}'").to_pylist()
        return row

    def tick(self) -> list[dg.RunRequest]:
        """The runs that the retraining sensor asks for."""
        target = self.inputs.deployment_target
        jobs = [
            define_job(f"{self.name}_{purpose}", selection=dg.AssetSelection.all(), description="")
            for purpose in ("training", "deployment")
        ]
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result: Any = build_retraining_sensor(target, jobs)(context)
        self.cursor = result.cursor
        return list(result.run_requests or [])

    def follow(self, request: dg.RunRequest, *stages: str) -> None:
        """Run what the sensor asked for."""
        assert request.partition_key is not None
        result = self.materialize(request.partition_key, stages, request.run_config)
        assert result.success, (inprocess.failures(result), inprocess.failed_checks(result))

    @property
    def champion(self) -> int:
        """The version that predicts."""
        champion = self.registry.champion(self.name)
        assert champion is not None
        return champion.version


@pytest.fixture
def loop(make_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    home = tmp_path_factory.mktemp("loop")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        registry = Registry(new_registry_url(home), "", Signer(home / "signing_key"))
        loop = Loop("binary_classification", make_lake(), registry, Settings(home=home / "home"))
        loop.build()
        loop.train(TRAINED)
        yield loop


def test_the_loop_recalibrates_watches_and_goes_back_by_itself(loop: Loop) -> None:
    first, second = (loop.pass_week(week) for week in list(WEEKS)[:2])
    # Nothing was known before the first week that it could be recalibrated by, and nothing was in service before it.
    assert (first["outcome"], first["recalibration_rows"], first["previous_version"]) == ("keep", None, None)
    assert second["outcome"] == "recalibrate"
    assert second["recalibration_high"] < 0
    assert "recalibrated it loses less" in second["reason"]

    [request] = loop.tick()
    loop.follow(request, *STAGES)
    assert (loop.champion, request.partition_key) == (2, "2020-03-16")
    assert loop.registry.registered_record(loop.registry.get(loop.name, 2)).training.recalibrates == 1

    third, fourth = (loop.pass_week(week) for week in list(WEEKS)[2:])
    assert [(row["model_version"], row["previous_version"], row["trained_for"].isoformat()) for row in (third, fourth)] == [
        (2, 1, TRAINED)
    ] * 2
    # Nothing was trained since, and the recalibrated version is better than the one before it, and as good as recalibrated anew.
    assert fourth["attempted"].isoformat() == TRAINED
    assert fourth["rollback_high"] < 0
    assert fourth["recalibration_rows"] > 300
    # What happens became rarer: decisions at the threshold are worse, and a training waits for its cooldown.
    assert fourth["outcome"] == "wait", fourth["reason"]

    loop.tick()
    loop.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            dg.AssetKey([loop.name, "retraining_decision"]),
            partition="2020-03-30",
            metadata={
                "outcome": "roll back",
                "reason": "the model before loses less",
                "decision": "1",
                "model_version": 2,
                "return_to": 1,
                "return_partition": TRAINED,
                "train_for": "2020-04-06",
            },
        )
    )
    [request] = loop.tick()
    loop.follow(request, "deployment")
    assert loop.champion == 1

    # No server answered, and the parity of the online store is a result that this test states.
    without = [dg.AssetKey([loop.name, stage]) for stage in ("prediction_log", "online_features")]
    undeclared, unread = undeclared_and_unread(loop.assets, loop.reads, without_table=without, unmet=())
    assert (sorted(undeclared), sorted(unread)) == ([], [])
