"""The sensors over all solutions: one of each kind, with a job for each solution."""

import dagster as dg

from mlops_assets.components.solution_sensors import build_solution_sensors
from mlops_assets.definitions import defs

KINDS = {
    "champions": "deployment",
    "challengers": "challenger",
    "served_versions": "served_version",
    "prediction_logs": "prediction_log",
}


def test_a_project_has_one_sensor_of_each_kind_which_runs_the_jobs_of_all_solutions() -> None:
    sensors = {sensor.name: sensor for sensor in build_solution_sensors(defs())}
    assert set(sensors) == {*KINDS, "late_inputs"}
    for name, purpose in KINDS.items():
        jobs = {target.job_name for target in sensors[name].targets}
        assert jobs >= {f"{solution}_{purpose}" for solution in ("flight_delay", "arrival_delay", "employment")}
    assert "flight_delay_segment_deployment" in {target.job_name for target in sensors["champions"].targets}


def test_definitions_without_a_solution_have_no_sensor() -> None:
    assert build_solution_sensors(dg.Definitions()) == []
