"""The dbt models as Dagster assets, run by Dagster on a lake of their own."""

from datetime import date

import dagster as dg
import dbt_lake
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from mlops_assets.core.partitions import build_partitions
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.features.dagster_dbt import DbtProject
from mlops_assets.features.dbt_models import DbtSelection, build_dbt_assets
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.schema_evolution import ColumnChange, alter_statements
from mlops_assets.lake.tables import fingerprint

pytestmark = pytest.mark.long

lake = dbt_lake.lake

SELECTED = [
    dg.AssetKey(["staging", name]) for name in ("airport_additions", "us_federal_holidays", "airports", "flights", "planes")
] + [
    dg.AssetKey(["features", "carrier_history"]),
    dg.AssetKey(["features", "aircraft"]),
    dg.AssetKey(["flight_delay", "spine"]),
]
SEEDS = ("airport_additions", "us_federal_holidays")
START, END = "2013-06-01", "2013-06-03"


@pytest.fixture(scope="module")
def project() -> DbtProject:
    """The dbt project as `mlops prepare` parsed it."""
    return DbtProject(current_project().dbt_project)


@pytest.fixture(scope="module")
def assets(project: DbtProject) -> dg.AssetsDefinition:
    selection = DbtSelection(
        project=project,
        tag="nycflights13",
        partitions=build_partitions(date(2013, 1, 1), date(2014, 1, 1), "daily"),
        cadence="daily",
    )
    return build_dbt_assets(selection, name="dbt_models")


def _materialize(
    assets: dg.AssetsDefinition, lake: Lake, *, start: str | None, end: str | None, selection: list[dg.AssetKey]
) -> dg.ExecuteInProcessResult:
    resources = {"lake": lake, "settings": Settings(home=lake.data_directory.parent)}
    window = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end} if start and end else {}
    return dg.materialize([assets], selection=selection, resources=resources, tags=window, raise_on_error=False)


@pytest.fixture(scope="module")
def result(assets: dg.AssetsDefinition, lake: Lake) -> dg.ExecuteInProcessResult:
    """One run: three partitions of partitioned models together with views, seeds and tables."""
    return _materialize(assets, lake, start=START, end=END, selection=SELECTED)


def test_one_run_materializes_each_partition_and_each_whole_table(result: dg.ExecuteInProcessResult) -> None:
    assert result.success
    found = {(event.asset_key.to_user_string(), event.partition) for event in result.get_asset_materialization_events()}
    days = ("2013-06-01", "2013-06-02", "2013-06-03")
    whole = (
        "staging/airport_additions",
        "staging/us_federal_holidays",
        "staging/airports",
        "staging/planes",
        "features/aircraft",
    )
    parts = ("staging/flights", "features/carrier_history", "flight_delay/spine")
    assert found == {(key, day) for key in parts for day in days} | {(key, None) for key in whole}


def test_row_counts_are_those_of_the_lake(result: dg.ExecuteInProcessResult, lake: Lake) -> None:
    with lake.connect(read_only=True) as connection:
        counts = {
            str(day): rows
            for day, rows in connection.execute("SELECT flight_date, count(*) FROM raw.flights GROUP BY ALL").fetchall()
        }
        aircraft = connection.execute("SELECT count(*) FROM raw.planes").fetchall()[0][0]
    seen = 0
    for event in result.get_asset_materialization_events():
        metadata = event.step_materialization_data.materialization.metadata
        if event.asset_key == dg.AssetKey(["flight_delay", "spine"]):
            assert metadata["dagster/partition_row_count"].value == counts[event.partition]
            assert metadata["dagster/row_count"].value == sum(counts[day] for day in ("2013-06-01", "2013-06-02", "2013-06-03"))
            seen += 1
        if event.asset_key == dg.AssetKey(["features", "aircraft"]):
            assert metadata["dagster/row_count"].value == aircraft
        assert metadata["lake_snapshot"].value > 0
    assert seen == 3


def versions(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str | None], str]:
    """The data version of each asset and partition that the run made."""
    return {
        (event.asset_key.to_user_string(), event.partition): event.step_materialization_data.materialization.tags[
            DATA_VERSION_TAG
        ]
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


def test_the_data_version_of_a_partition_is_its_content(result: dg.ExecuteInProcessResult, lake: Lake) -> None:
    made = versions(result)
    with lake.connect(read_only=True) as connection:
        for day in ("2013-06-01", "2013-06-02", "2013-06-03"):
            rows = f"(FROM flight_delay.spine WHERE flight_date = DATE '{day}')"
            assert made["flight_delay/spine", day] == fingerprint(connection, rows)
        assert made["features/aircraft", None] == fingerprint(connection, "features.aircraft")


def test_every_column_of_a_model_leads_to_columns_upstream(
    result: dg.ExecuteInProcessResult, assets: dg.AssetsDefinition
) -> None:
    lineage = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata["dagster/column_lineage"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key and "dagster/column_lineage" in event.step_materialization_data.materialization.metadata
    }
    models = {spec.key.to_user_string(): spec for spec in assets.specs if spec.key.path[-1] not in SEEDS}
    assert lineage.keys() == models.keys() & {
        event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key
    }
    for table, found in lineage.items():
        declared = {column.name for column in models[table].metadata["dagster/column_schema"].columns}
        assert found.deps_by_column.keys() == declared
        assert [column for column, deps in found.deps_by_column.items() if not deps] == [], table
    [tail] = lineage["staging/flights"].deps_by_column["tailnum"]
    assert (tail.asset_key.to_user_string(), tail.column_name) == ("raw/flights", "tailnum")


def test_dbt_tests_are_blocking_checks(result: dg.ExecuteInProcessResult, assets: dg.AssetsDefinition) -> None:
    assert all(spec.blocking for spec in assets.check_specs)
    evaluations = {
        (check.asset_key.to_user_string(), check.check_name): check.passed for check in result.get_asset_check_evaluations()
    }
    assert evaluations["staging/flights", "unique_flights_flight_id"]
    assert evaluations["flight_delay/spine", "spine_label_exactly_when_arrived"]
    assert all(evaluations.values())


def test_specs_say_what_a_table_is(assets: dg.AssetsDefinition) -> None:
    spec = assets.specs_by_key[dg.AssetKey(["features", "carrier_history"])]
    assert spec.group_name == "nycflights13_features"
    assert spec.owners == ["team:airline-operations"]
    assert spec.kinds == {"dbt", "duckdb"}
    assert spec.metadata["dagster/table_name"] == "lake.features.carrier_history"
    columns = {column.name: column for column in spec.metadata["dagster/column_schema"].columns}
    assert columns["carrier_late_rate_7d"].type == "double"
    assert all(column.description for column in columns.values())
    [dependency] = spec.deps
    assert dependency.asset_key == dg.AssetKey(["staging", "flights"])


def test_without_partitions_an_incremental_model_is_refused(assets: dg.AssetsDefinition, lake: Lake) -> None:
    refused = _materialize(assets, lake, start=None, end=None, selection=[dg.AssetKey(["flight_delay", "spine"])])
    assert not refused.success


def test_a_failing_model_says_what_dbt_said_and_is_not_tried_again(
    assets: dg.AssetsDefinition, lake: Lake, result: dg.ExecuteInProcessResult
) -> None:
    with lake.connect(read_only=False) as connection:
        connection.execute("ALTER TABLE raw.planes RENAME COLUMN seats TO chairs")
    try:
        failed = _materialize(assets, lake, start=None, end=None, selection=[dg.AssetKey(["staging", "planes"])])
    finally:
        with lake.connect(read_only=False) as connection:
            connection.execute("ALTER TABLE raw.planes RENAME COLUMN chairs TO seats")
    assert not failed.success
    [failure] = [event for event in failed.all_events if event.event_type_value == "STEP_FAILURE"]
    assert '"seats" not found' in str(failure.event_specific_data.error.message)  # type: ignore[union-attr]
    assert not [event for event in failed.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


def test_a_wider_type_of_the_contract_is_followed_and_another_one_is_named_before_dbt_runs(
    assets: dg.AssetsDefinition, lake: Lake, result: dg.ExecuteInProcessResult
) -> None:
    spine = dg.AssetKey(["flight_delay", "spine"])

    def retype(old: str, new: str) -> None:
        with lake.connect(read_only=False) as connection:
            for statement in alter_statements("lake.flight_delay.spine", ColumnChange("distance", old, new)):
                connection.execute(statement)

    retype("INTEGER", "SMALLINT")
    widened = _materialize(assets, lake, start=END, end=END, selection=[spine])
    assert widened.success
    event = widened.get_asset_materialization_events()[-1].step_materialization_data.materialization
    assert event.metadata["schema_changes"].value == ["distance SMALLINT -> INTEGER"]
    retype("INTEGER", "VARCHAR")
    try:
        refused = _materialize(assets, lake, start=END, end=END, selection=[spine])
    finally:
        retype("VARCHAR", "INTEGER")
    assert not refused.success
    [failure] = [event for event in refused.all_events if event.event_type_value == "STEP_FAILURE"]
    message = str(failure.event_specific_data.user_failure_data.description)  # type: ignore[union-attr]
    assert "column distance is VARCHAR and would become INTEGER" in message
    assert "mlops schema plan flight_delay.spine --type distance=INTEGER" in message


def test_a_failing_test_blocks(assets: dg.AssetsDefinition, lake: Lake, result: dg.ExecuteInProcessResult) -> None:
    day = "2013-06-02"
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE TABLE raw.copy AS FROM raw.flights WHERE flight_date = ? LIMIT 1", [day])
        connection.execute("INSERT INTO raw.flights FROM raw.copy")
    try:
        doubled = _materialize(assets, lake, start=day, end=day, selection=[SELECTED[3], dg.AssetKey(["flight_delay", "spine"])])
    finally:
        with lake.connect(read_only=False) as connection:
            connection.execute("DELETE FROM raw.flights WHERE flight_date = ?", [day])
            connection.execute("DROP TABLE raw.copy")
    assert not doubled.success
    failed = [check for check in doubled.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["unique_flights_flight_id"]
    assert dg.AssetKey(["flight_delay", "spine"]) not in {event.asset_key for event in doubled.get_asset_materialization_events()}
