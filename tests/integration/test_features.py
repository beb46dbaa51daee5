"""The feature registry on a real lake: contracts, statistics and impact, with a copy of the dbt project that may be changed."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import dbt_lake
import pandas as pd
import pytest
from bundles import contract
from dbt_process import run_dbt
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.clients.bundle_record import record_file
from mlops_assets.core.partitions import build_partitions
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.catalog import FeatureCatalog
from mlops_assets.feature_store.site import render_site
from mlops_assets.features.dagster_dbt import DbtProject
from mlops_assets.features.dbt_models import DbtSelection, build_dbt_assets
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.features.statistics_assets import build_feature_statistics
from mlops_assets.lake.lake import Lake

pytestmark = pytest.mark.long

lake = dbt_lake.lake

STATISTICS = dg.AssetKey(["features", "nycflights13_statistics"])
WEATHER = dg.AssetKey(["features", "origin_weather"])
BUILT = [dg.AssetKey(["staging", "weather"]), dg.AssetKey(["staging", "planes"]), WEATHER, dg.AssetKey(["features", "aircraft"])]
START, END = "2013-06-01", "2013-06-03"
USERS_OF_WEATHER = ["arrival_delay", "flight_delay"]
"""The bundled solutions with the view `origin_weather`."""


# The first version keeps its table; the second has one of its own.
VERSIONS = """
    latest_version: 1
    versions:
      - v: 1
        defined_in: origin_weather
        config: {alias: origin_weather}
      - v: 2
        columns:
          - include: all
            exclude: [weather_visibility]
          - {name: weather_visibility, data_type: integer, description: Miles.}
"""


@dataclass
class Sandbox:
    """A copy of the dbt project with a lake and a state folder."""

    directory: Path
    lake: Lake
    settings: Settings

    def edit(self, name: str, *replacements: tuple[str, str]) -> None:
        path = self.directory / "models" / "features" / "nycflights13" / name
        text = path.read_text()
        for old, new in replacements:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path.write_text(text)

    def parse(self) -> DbtSelection:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
            "MLOPS_LAKE_CATALOG": self.lake.catalog,
            "MLOPS_LAKE_DATA": self.lake.data_path.rstrip("/"),
            "MLOPS_DUCKDB_EXTENSIONS": str(self.lake.extension_directory),
            "DO_NOT_TRACK": "1",
            **dbt_profile_variables(),
        }
        parsed = run_dbt("--quiet", "parse", directory=self.directory, environment=environment)
        assert parsed.returncode == 0, parsed.stdout + parsed.stderr
        return DbtSelection(
            project=DbtProject(self.directory),
            tag="nycflights13",
            partitions=build_partitions(date(2013, 1, 1), date(2014, 1, 1), "daily"),
            cadence="daily",
        )

    def materialize(self, selection: DbtSelection, keys: list[dg.AssetKey] | dg.AssetSelection) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [build_dbt_assets(selection, name="dbt_models"), build_feature_statistics(selection)],
            selection=keys,
            resources={"lake": self.lake, "settings": self.settings},
            tags={"dagster/asset_partition_range_start": START, "dagster/asset_partition_range_end": END},
            raise_on_error=False,
        )


@pytest.fixture(scope="module")
def make_sandbox(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Sandbox]:
    home = tmp_path_factory.mktemp("home")
    described = contract(
        name="flight_delay",
        version=3,
        features=[{"name": "weather_visibility", "type": "double", "minimum": 0, "maximum": 10}],
        feature_views=[
            {"name": "origin_weather", "version": 1, "entity": ["origin"], "features": ["weather_visibility"], "online": True}
        ],
    )
    bundle = home / "serving" / "flight_delay" / "3"
    bundle.mkdir(parents=True)
    (bundle / "contract.json").write_text(described.model_dump_json())
    record_file(bundle).write_text("{}")

    def make() -> Sandbox:
        directory = tmp_path_factory.mktemp("project") / "dbt_project"
        shutil.copytree(current_project().dbt_project, directory, ignore=shutil.ignore_patterns("logs"))
        # No model registry answers at port 1.
        return Sandbox(directory=directory, lake=lake, settings=Settings(home=home, mlflow_port=1))

    return make


@pytest.fixture(scope="module")
def sandbox(make_sandbox: Callable[[], Sandbox]) -> Sandbox:
    return make_sandbox()


@pytest.fixture(scope="module")
def selection(sandbox: Sandbox) -> DbtSelection:
    """The models of the project as it is."""
    return sandbox.parse()


@pytest.fixture(scope="module")
def built(sandbox: Sandbox, selection: DbtSelection) -> dg.ExecuteInProcessResult:
    """Two views and their statistics for three days."""
    return sandbox.materialize(selection, [*BUILT, STATISTICS])


def _contracts(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.asset_key.path[-1]: check for check in result.get_asset_check_evaluations() if check.check_name == "contract"}


def _checks(selection: DbtSelection, key: dg.AssetKey) -> list[str]:
    return [spec.name for spec in selection.check_specs() if spec.asset_key == key]


def _failure(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    data = failure.event_specific_data
    return f"{data.error.message} {data.user_failure_data.description if data.user_failure_data else ''}"  # type: ignore[union-attr]


def test_the_first_build_records_the_contract(built: dg.ExecuteInProcessResult, sandbox: Sandbox) -> None:
    assert built.success
    contracts = _contracts(built)
    assert set(contracts) == {"origin_weather", "aircraft"}
    assert all(check.passed and check.blocking for check in contracts.values())
    with sandbox.lake.connect(read_only=True) as connection:
        recorded = dict(
            connection.execute(
                "SELECT \"column\", type FROM features.contracts WHERE view = 'origin_weather' AND version = 1"
            ).fetchall()
        )
    assert recorded["weather_visibility"] == "DOUBLE"
    assert recorded["event_timestamp"] == "TIMESTAMP WITH TIME ZONE"
    assert "_loaded_at" not in recorded


def test_statistics_equal_those_of_pandas(built: dg.ExecuteInProcessResult, sandbox: Sandbox) -> None:
    with sandbox.lake.connect(read_only=True) as connection:
        found = connection.execute("FROM features.nycflights13_statistics").df()
        weather = connection.execute("FROM features.origin_weather").df()
        aircraft = connection.execute("FROM features.aircraft").df()
    assert set(found["view"]) == {"origin_weather", "aircraft"}
    checked = 0
    for row in found.itertuples():
        table = aircraft if row.view == "aircraft" else weather[weather["event_date"] == row.partition]
        assert pd.isna(row.partition) == (row.view == "aircraft")
        values = table[row.feature].dropna()
        assert row.rows == len(table)
        assert row.missing_share == pytest.approx(table[row.feature].isna().mean())
        assert row.distinct_values == values.nunique()
        if len(values):
            assert row.most_frequent_share == pytest.approx(values.value_counts().iloc[0] / len(values))
        if len(values) > 1 and pd.api.types.is_numeric_dtype(values):
            expected = values.astype(float)
            for name, value in {
                "mean": expected.mean(),
                "standard_deviation": expected.std(),
                "minimum": expected.min(),
                "maximum": expected.max(),
                "median": expected.median(),
                **{f"quantile_{percent:02}": expected.quantile(percent / 100) for percent in (5, 25, 75, 95)},
            }.items():
                assert getattr(row, name) == pytest.approx(value, rel=1e-9, abs=1e-12), (row.feature, name)
            checked += 1
        elif not len(values) or values.dtype == object:
            assert pd.isna(row.mean)
    assert checked > 3 * 8
    [last] = [
        event.step_materialization_data.materialization
        for event in built.get_asset_materialization_events()
        if event.asset_key == STATISTICS and event.partition == END
    ]
    assert str(last.metadata["statistics"].value).startswith("![Missing share and mean")
    assert "carrier_history" in last.metadata["not_materialized"].value  # type: ignore[operator]


def test_the_catalogue_shows_values_uses_and_impact_of_every_view(built: dg.ExecuteInProcessResult, sandbox: Sandbox) -> None:
    nodes = json.loads((sandbox.directory / "target" / "manifest.json").read_text())["nodes"].values()
    catalog = FeatureCatalog(sandbox.directory, current_project().definitions_directory, sandbox.settings)
    with sandbox.lake.connect(read_only=True) as connection:
        page = render_site(catalog, connection)
    sections = {found[1]: found[2] for found in re.finditer(r'<section id="(\w+)-\d+">(.*?)</section>', page, re.DOTALL)}
    assert len(sections) == sum(node.get("meta", {}).get("feature_view") is not None for node in nodes)
    weather = sections["origin_weather"]
    assert "flight_delay (" in weather
    assert f"<dt>newest partition</dt><dd>{END}</dd>" in weather
    # Three partitions of numbers make a line and a band.
    assert len(re.findall(r'<polyline points="0\.0,[\d.]+ 110\.0,[\d.]+ 220\.0,[\d.]+"/>', weather)) >= 5
    assert weather.count("<td>EWR</td>") + weather.count("<td>JFK</td>") + weather.count("<td>LGA</td>") == 5
    # Of a view that is not built the definition is there.
    assert "<svg" not in sections["carrier_history"]
    assert "Newest rows" not in sections["carrier_history"]
    # Nothing comes from elsewhere.
    assert re.findall(r'(?:src|href)="(?!#)', page) == []


def test_dagster_shows_the_page_of_each_view(built: dg.ExecuteInProcessResult) -> None:
    pages = {
        event.asset_key: event.event_specific_data.asset_observation.metadata["feature_view_page"].value
        for event in built.get_asset_observation_events()
        if event.asset_key
    }
    # Of a view that is not built there is none.
    assert WEATHER in pages
    assert all(key.path[-1] != "carrier_history" for key in pages)
    page = str(pages[WEATHER])
    assert f"| newest partition | {END} |" in page
    assert "| used by | arrival_delay (" in page
    assert "flight_delay version 3" in page
    assert page.count("data:image/svg+xml;base64,") >= 5
    for table in page.split("\n\n"):
        # As many cells in every row as in the head.
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}) <= 1, table


def test_what_a_catalogue_shows_is_escaped(
    built: dg.ExecuteInProcessResult, make_sandbox: Callable[[], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = make_sandbox()
    changed.edit("origin_weather.yml", ("Hourly weather at the origin. An", "<img src=x onerror=alert(1)> An"))
    changed.parse()
    monkeypatch.setenv("MLOPS_ENV", "prod")
    page = render_site(FeatureCatalog(changed.directory, current_project().definitions_directory, changed.settings), None)
    assert "<title>[prod] Features</title>" in page
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "Without values" in page


def test_statistics_again_change_nothing(built: dg.ExecuteInProcessResult, sandbox: Sandbox, selection: DbtSelection) -> None:
    again = sandbox.materialize(selection, [STATISTICS])
    assert again.success
    assert [
        event.step_materialization_data.materialization.metadata["changed"].value
        for event in again.get_asset_materialization_events()
    ] == [False, False, False]


def test_a_partition_unlike_those_before_is_a_warning_at_its_view(
    built: dg.ExecuteInProcessResult, sandbox: Sandbox, selection: DbtSelection
) -> None:
    usual = [check for check in built.get_asset_check_evaluations() if check.check_name == "usual_values"]
    # Of few partitions nothing is known.
    assert [check.passed for check in usual] == [True, True, True]
    with sandbox.lake.connect(read_only=False) as connection:
        connection.execute(
            f"INSERT INTO lake.features.nycflights13_statistics SELECT s.* REPLACE (DATE '{START}' - day::INT AS partition, 70 AS mean, "
            f"1 AS standard_deviation) FROM lake.features.nycflights13_statistics s, range(1, 41) days(day) "
            f"WHERE feature = 'weather_visibility' AND partition = DATE '{END}'"
        )
    again = sandbox.materialize(selection, [STATISTICS])
    with sandbox.lake.connect(read_only=False) as connection:
        connection.execute(f"DELETE FROM lake.features.nycflights13_statistics WHERE partition < DATE '{START}'")
    assert again.success
    checks = {check.partition: check for check in again.get_asset_check_evaluations() if check.check_name == "usual_values"}
    first = checks[START]
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.WARN
    assert "origin_weather.weather_visibility: mean" in str(first.description)
    # The view's own page in Dagster has it, whatever solutions use the view.
    [observed] = [
        event.event_specific_data.asset_observation
        for event in again.get_asset_observation_events()
        if event.asset_key == WEATHER
    ]
    assert any("weather_visibility" in sentence for sentence in observed.metadata["unusual"].value)


def test_checks_alone_build_nothing(built: dg.ExecuteInProcessResult, sandbox: Sandbox, selection: DbtSelection) -> None:
    contract = dg.AssetSelection.checks(dg.AssetCheckKey(WEATHER, "contract"))
    for chosen, count in ((contract, 1), (dg.AssetSelection.checks_for_assets(WEATHER), len(_checks(selection, WEATHER)))):
        result = sandbox.materialize(selection, chosen)
        assert result.success, _failure(result)
        assert len(result.get_asset_check_evaluations()) == count
        assert not result.get_asset_materialization_events()
    assert count > 1


def test_a_new_feature_is_allowed_and_recorded(built: dg.ExecuteInProcessResult, make_sandbox: Callable[[], Sandbox]) -> None:
    changed = make_sandbox()
    column = "      - {name: weather_is_calm, data_type: boolean, description: No wind.}\n      - name: weather_visibility\n"
    changed.edit("origin_weather.yml", ("      - name: weather_visibility\n", column))
    changed.edit(
        "origin_weather.sql",
        ("visibility as weather_visibility", "wind_speed = 0 as weather_is_calm,\n    visibility as weather_visibility"),
    )
    result = changed.materialize(changed.parse(), [WEATHER])
    assert result.success, _failure(result)
    check = _contracts(result)["origin_weather"]
    assert check.passed
    assert check.metadata["added"].value == {"weather_is_calm": "BOOLEAN"}
    with changed.lake.connect(read_only=True) as connection:
        assert connection.execute("SELECT count(weather_is_calm) FROM features.origin_weather").fetchall()[0][0] > 0
        assert connection.execute("SELECT count(*) FROM features.contracts WHERE \"column\" = 'weather_is_calm'").fetchall() == [
            (1,)
        ]


def test_a_broken_contract_names_who_breaks_and_builds_nothing(
    built: dg.ExecuteInProcessResult, make_sandbox: Callable[[], Sandbox]
) -> None:
    changed = make_sandbox()
    visibility = "      - name: weather_visibility\n        data_type: "
    changed.edit(
        "origin_weather.yml", (f"{visibility}double", f"{visibility}integer"), ("weather_pressure", "weather_sea_level_pressure")
    )
    changed.edit(
        "origin_weather.sql",
        ("visibility as weather_visibility", "visibility::integer as weather_visibility"),
        ("weather_pressure", "weather_sea_level_pressure"),
    )
    with changed.lake.connect(read_only=True) as connection:
        before = connection.execute("DESCRIBE features.origin_weather").fetchall()
    result = changed.materialize(changed.parse(), BUILT)
    assert not result.success
    check = _contracts(result)["origin_weather"]
    assert not check.passed
    assert check.metadata["retyped"].value == {"weather_visibility": "DOUBLE -> INTEGER"}
    assert check.metadata["removed"].value["weather_pressure"] == "DOUBLE"  # type: ignore[call-overload,index]
    assert check.metadata["solutions"].value == USERS_OF_WEATHER
    assert check.metadata["live_models"].value == ["flight_delay version 3 (promoted; champion unknown)"]
    message = _failure(result)
    for part in (
        "weather_visibility was DOUBLE, is INTEGER",
        "weather_pressure removed or renamed",
        *USERS_OF_WEATHER,
        "version 2",
    ):
        assert part in message
    assert not result.get_asset_materialization_events()
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    with changed.lake.connect(read_only=True) as connection:
        assert connection.execute("DESCRIBE features.origin_weather").fetchall() == before


def test_the_same_change_as_a_new_version_is_a_new_table(
    built: dg.ExecuteInProcessResult, make_sandbox: Callable[[], Sandbox]
) -> None:
    changed = make_sandbox()
    models = changed.directory / "models" / "features" / "nycflights13"
    sql = (models / "origin_weather.sql").read_text()
    (models / "origin_weather_v2.sql").write_text(sql.replace("visibility as", "visibility::integer as"))
    with (models / "origin_weather.yml").open("a") as file:
        file.write(VERSIONS)
    selection = changed.parse()
    second = dg.AssetKey(["features", "origin_weather_v2"])
    result = changed.materialize(selection, [second])
    assert result.success, _failure(result)
    assert _contracts(result)["origin_weather_v2"].metadata["version"].value == 2
    with changed.lake.connect(read_only=True) as connection:
        types = connection.execute(
            "SELECT version, type FROM features.contracts WHERE view = 'origin_weather' AND \"column\" = 'weather_visibility' ORDER BY 1"
        ).fetchall()
    assert types == [(1, "DOUBLE"), (2, "INTEGER")]
    catalog = FeatureCatalog(
        project=changed.directory, definitions=current_project().definitions_directory, settings=changed.settings
    )
    shown = {version: catalog.definition(catalog.registry.view("origin_weather", version)) for version in (1, 2)}
    assert [shown[version]["versions"] for version in (1, 2)] == [[1, 2], [1, 2]]
    assert [shown[version]["table"] for version in (1, 2)] == ["features.origin_weather", "features.origin_weather_v2"]
    assert [[use["solution"] for use in shown[version]["solutions"]] for version in (1, 2)] == [USERS_OF_WEATHER, []]


def test_impact_follows_columns_to_views_solutions_and_models(built: dg.ExecuteInProcessResult, sandbox: Sandbox) -> None:
    catalog = FeatureCatalog(
        project=sandbox.directory, definitions=current_project().definitions_directory, settings=sandbox.settings
    )
    visibility = catalog.impact("raw.weather.visib")
    assert visibility["level"] == "column"
    assert visibility["views"] == [{"view": "origin_weather", "version": 1, "features": ["weather_visibility"]}]
    assert visibility["solutions"] == [
        {"solution": solution, "features": ["weather_visibility"], "spine": []} for solution in USERS_OF_WEATHER
    ]
    assert [model["features"] for model in visibility["live_models"]] == [["weather_visibility"]]
    temperature = catalog.impact("staging.weather.temperature")
    assert [view["features"] for view in temperature["views"]] == [["weather_temperature"]]
    assert temperature["live_models"] == []
    delays = {view["view"] for view in catalog.impact("raw.flights.arr_delay")["views"]}
    assert delays >= {"carrier_history", "aircraft_history", "aircraft_previous_leg"}
    assert delays.isdisjoint({"origin_weather", "aircraft", "person"})
    whole = catalog.impact("raw.weather")
    assert whole["level"] == "model"
    assert [view["view"] for view in whole["views"]] == ["origin_weather"]
    assert catalog.impact("raw.flights.air_time")["views"] == []
    # SQL does not tell upper from lower case.
    assert catalog.impact("raw.census.AGEP")["views"] == [{"view": "person", "version": 1, "features": ["age"]}]


def test_show_has_definition_statistics_and_users(
    built: dg.ExecuteInProcessResult, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = dataclasses.replace(current_project(), dbt_project=sandbox.directory)
    monkeypatch.setattr("mlops_assets.cli.features.current_project", lambda: project)
    monkeypatch.setattr(Settings, "from_environment", lambda: sandbox.settings)
    monkeypatch.setattr(Lake, "from_settings", lambda _: sandbox.lake)
    result = CliRunner().invoke(app, ["features", "show", "origin_weather", "--json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["upstream"] == ["raw.weather"]
    assert shown["sql"] == "dbt_project/models/features/nycflights13/origin_weather.sql"
    assert [use["solution"] for use in shown["solutions"]] == USERS_OF_WEATHER
    assert shown["model_versions"] == ["flight_delay version 3 (promoted; champion unknown)"]
    assert {row["feature"] for row in shown["statistics"]} == {
        column["column"] for column in shown["columns"] if column["role"] == "feature"
    }
    assert shown["statistics"][0]["partition"] == END
    table = CliRunner().invoke(app, ["features", "show", "origin_weather", "--sql"], env={"COLUMNS": "160"})
    assert "Statistics of 2013-06-03" in table.stdout
    assert "business_date" in table.stdout
