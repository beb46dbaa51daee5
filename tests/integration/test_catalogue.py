"""What the Dagster UI shows of the bundled definitions, measured over all of them: each share is 100 %, or the exception has its reason here."""

import dagster as dg
import pytest
from catalogue_reasons import WITHOUT_COLUMNS, WITHOUT_UPSTREAM

from mlops_assets.core.keys import RAW_SCHEMA, SOLUTION_TAG, STAGE_TAG, group_name
from mlops_assets.definitions import defs

# Stages without a freshness policy, and why.
FOLLOWS_AN_EVENT = {
    "training_dataset": "made by a training: as old as the model, which has a policy",
    "evaluation": "evaluates one model, in the same run: as old as the model",
    "deployment": "as old as the champion, which is right to stay while no candidate is better",
    "segment_model": "trained when a person asks for it",
    "segment_evaluation": "evaluates one model of a segment, in the same run",
    "segment_deployment": "as old as the champion of the segment",
    "challenger": "changes when a version passes its gates or the YAML changes",
    "prediction_log": "written while the servers are asked; no request is no fault",
    "shadow_predictions": "written while a challenger is tried in the shadow",
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture(scope="module")
def repository(definitions: dg.Definitions) -> dg.RepositoryDefinition:
    return definitions.get_repository_def()


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> list[dg.AssetSpec]:
    return [spec for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition) for spec in asset.specs]


def test_every_check_says_what_it_holds_to_be_true(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    checks = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert len(checks) > 180
    assert [spec.key.to_user_string() for spec in checks if not (spec.description or "").strip()] == []
    described = {spec.name: spec.description for spec in checks}
    assert described["unique_flights_flight_id"] == "No value of `flight_id` occurs twice."
    assert described["accepted_values_flights_status__arrived__cancelled__diverted"] == (
        "Every value of `status` is one of arrived, cancelled, diverted."
    )


def test_every_asset_has_a_code_version(specs: list[dg.AssetSpec]) -> None:
    assert [spec.key.to_user_string() for spec in specs if not spec.code_version] == []


def test_every_asset_has_a_freshness_policy_or_a_reason(specs: list[dg.AssetSpec], repository: dg.RepositoryDefinition) -> None:
    for spec in specs:
        if STAGE_TAG in spec.tags:
            follows_the_clock = spec.tags[STAGE_TAG] not in FOLLOWS_AN_EVENT
        else:
            # A table without partitions has no cadence and changes with its file, unless it is a view that states one.
            follows_the_clock = repository.asset_graph.get(spec.key).is_partitioned or "feature_view" in spec.metadata
        assert (spec.freshness_policy is not None) == follows_the_clock, spec.key.to_user_string()


def test_every_group_is_of_one_solution_or_of_one_source(specs: list[dg.AssetSpec]) -> None:
    solutions = {spec.tags[SOLUTION_TAG] for spec in specs if SOLUTION_TAG in spec.tags}
    for spec in specs:
        owner = spec.tags.get(SOLUTION_TAG) or spec.key.path[0]
        if owner in solutions:
            assert spec.group_name == owner
        else:
            source, _, layer = str(spec.group_name).rpartition("_")
            assert spec.group_name == group_name(source, layer)
            assert layer == spec.key.path[0]
    assert {"nycflights13_raw", "census_raw", "nycflights13_features", "census_staging"} <= {spec.group_name for spec in specs}


def test_every_table_has_column_lineage_or_a_reason(specs: list[dg.AssetSpec], repository: dg.RepositoryDefinition) -> None:
    """What the materializations of the others hold is seen where they are made: `test_flight_delay.py`, `test_hostile_names.py`."""
    stages = {spec.tags[STAGE_TAG] for spec in specs if STAGE_TAG in spec.tags}
    assert set(WITHOUT_COLUMNS) < stages
    without = {spec.key for spec in specs if not repository.asset_graph.get(spec.key).parent_keys}
    assert {key.to_user_string() for key in without if key.path[0] != RAW_SCHEMA} == set(WITHOUT_UPSTREAM)


def test_no_run_has_a_name_that_dagster_made_up(repository: dg.RepositoryDefinition) -> None:
    # The job of a selection by hand or by conditions: for it the run list shows the assets.
    assert {job.name for job in repository.get_all_jobs() if job.name.startswith("__")} == {"__ASSET_JOB"}
    assert [job.name for job in repository.get_all_jobs() if not job.name.startswith("__") and not job.description] == []


def test_every_sensor_and_every_job_of_a_sensor_is_described(repository: dg.RepositoryDefinition) -> None:
    assert [sensor.name for sensor in repository.sensor_defs if not sensor.description] == []


def test_the_bundled_data_is_of_the_past_and_needs_no_schedule(repository: dg.RepositoryDefinition) -> None:
    # What is there is of the platform: nothing loads or trains by the clock.
    assert [schedule.name for schedule in repository.schedule_defs] == ["platform_maintenance_schedule"]
