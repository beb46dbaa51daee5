"""Feature views that are compiled from YAML, against what was known at the time in plain Python, and as assets beside the solution.

dbt compiles the models once. Their SQL runs on an empty DuckDB of its own, on random parcels around a change of the clock.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb
import parcels
import pytest
from dbt_process import run_dbt
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mlops_assets.components.project import project_definitions
from mlops_assets.core.project import Project
from mlops_assets.features.dbt_package import link_dbt_package
from mlops_assets.features.generated.project_files import write_generated_models
from mlops_assets.lake.lake import Lake

ZONE = ZoneInfo("Europe/Berlin")
START, END = date(2024, 3, 30), date(2024, 4, 2)
"""The window that dbt builds: the clock is set forward on 31 March."""

MIDNIGHTS = [datetime.combine(START + timedelta(days=day), datetime.min.time(), ZONE).astimezone(UTC) for day in range(3)]
HOURS = [MIDNIGHTS[0] + timedelta(hours=hour) for hour in range(71)]
"""The three days of the window have 71 hours."""

_COLUMNS = """(parcel_id VARCHAR, sent_at TIMESTAMPTZ, depot VARCHAR, weight_kg DOUBLE, distance_km INTEGER, delivered_at TIMESTAMPTZ,
sent_date DATE, _loaded_at TIMESTAMPTZ, _source VARCHAR)"""

_PROFILE = """mlops:
  target: memory
  outputs:
    memory: {type: duckdb, path: LAKE, schema: main, threads: 1, settings: {TimeZone: UTC}}
"""


PLANTS = """type: mlops_assets.RawTables
attributes:
  owners: [team:botany]
  tables:
    plants:
      description: Plants, with names that SQL has to quote.
      files: [plants.csv]
      columns: {Länge (cm): {type: double}, order: {type: integer}, "it's, {x}": {type: double}, Art: {type: varchar}}
"""
ROSES = """type: mlops_assets.MLSolution
attributes:
  name: roses
  description: Whether a plant is a rose.
  owners: [team:botany]
  problem: binary_classification
  partitions: {start: 2024-03-01}
  spine: {table: plants, label: is_rose, expressions: {is_rose: "\\"Art\\" = 'Rose'"}}
  features: [{request: [Länge (cm), order, "it's, {x}"]}]
  training: {metric: roc_auc, estimator: {type: sklearn.linear_model.LogisticRegression}}
"""


@dataclass(frozen=True)
class Parcel:
    """A row of the raw table."""

    depot: str | None
    sent_at: datetime
    weight_kg: float | None
    distance_km: int
    delivered_at: datetime | None


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project of the parcels, with feature views in the time of Berlin, compiled by dbt for the window."""
    root = tmp_path_factory.mktemp("shop")
    found = parcels.parcels_project(root)
    zone = "cadence: daily, time_zone: Europe/Berlin}"
    parcels.declare(found, "parcels", parcels.SOURCE.replace("cadence: daily}", zone) + parcels.VIEWS)
    parcels.declare(
        found, "parcel_delay", parcels.SOLUTION.replace("distance_km]\n", "distance_km]\n    - {view: depot_history}\n")
    )
    parcels.declare(found, "plants", PLANTS)
    parcels.declare(found, "roses", ROSES)
    write_generated_models(found)
    link_dbt_package(found.dbt_project)
    (root / "profiles.yml").write_text(_PROFILE.replace("LAKE", str(root / "lake.duckdb")))
    with duckdb.connect(str(root / "lake.duckdb")) as lake:
        lake.execute(f"SET TimeZone = 'UTC'; CREATE SCHEMA raw; CREATE TABLE raw.parcels {_COLUMNS}")
        lake.execute(
            """CREATE TABLE raw.plants ("Länge (cm)" DOUBLE, "order" INTEGER, "it's, {x}" DOUBLE, "Art" VARCHAR, _loaded_at TIMESTAMPTZ);
            INSERT INTO raw.plants VALUES (1.5, 1, 0.5, 'Rose', now()), (1.5, 1, 0.5, NULL, now()), (2.5, 2, 0.5, 'Veilchen', now())"""
        )
        insert(lake, "raw.parcels", [Parcel("north", MIDNIGHTS[0], 1.5, 7, MIDNIGHTS[1])])
    window = ["--event-time-start", f"{START}", "--event-time-end", f"{END}"]
    environment = {**os.environ, "DBT_PROFILES_DIR": str(root), "DO_NOT_TRACK": "1"}
    done = run_dbt("build", *window, directory=found.dbt_project, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute(
            f"SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; CREATE SCHEMA lake.raw; CREATE TABLE lake.raw.parcels {_COLUMNS}"
        )
        yield opened


def insert(connection: duckdb.DuckDBPyConnection, table: str, sent: Sequence[Parcel]) -> None:
    for parcel in sent:
        connection.execute(
            f"INSERT INTO {table} VALUES ('1', ?, ?, ?, ?, ?, ?, TIMESTAMPTZ '2024-06-01 00:00:00Z', 'test')",
            [
                parcel.sent_at,
                parcel.depot,
                parcel.weight_kg,
                parcel.distance_km,
                parcel.delivered_at,
                parcel.sent_at.astimezone(ZONE).date(),
            ],
        )


def compiled(project: Project, view: str) -> str:
    [path] = (project.dbt_project / "target" / "compiled").rglob(f"{view}.sql")
    return path.read_text()


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str, sent: Sequence[Parcel]) -> dict[tuple[str, datetime], tuple]:
    """What the view holds: (depot, event timestamp) -> features."""
    connection.execute("DELETE FROM lake.raw.parcels")
    insert(connection, "lake.raw.parcels", sent)
    rows = connection.execute(f"SELECT * EXCLUDE (event_date, _loaded_at) FROM ({sql})").fetchall()
    result = {(depot, moment.astimezone(UTC)): tuple(features) for depot, moment, *features in rows}
    assert len(result) == len(rows), "two rows of one depot and moment"
    return result


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def deliveries(rows: Sequence[Parcel], moment: datetime) -> tuple[object, ...]:
    """The features of `depot_history` of the parcels that are known at `moment`."""
    late = [
        row.delivered_at - row.sent_at > timedelta(hours=24)
        for row in rows
        if row.delivered_at and row.delivered_at > moment - timedelta(days=7)
    ]
    return len(late), mean(late)


def sendings(rows: Sequence[Parcel], moment: datetime) -> tuple[object, ...]:
    """The features of `depot_parcels` of the parcels that are known at `moment`."""

    def within(days: int) -> list[Parcel]:
        return [row for row in rows if row.sent_at > moment - timedelta(days=days)]

    weights = [row.weight_kg for row in within(3) if row.weight_kg is not None]
    weighed = [row for row in within(3) if row.weight_kg is not None]
    newest = max(weighed, key=lambda row: (row.sent_at, row.delivered_at, row.weight_kg), default=None)
    last = max((row.sent_at for row in within(3)), default=None)
    return (
        sum(row.weight_kg is not None and row.weight_kg > 20 for row in within(1)),
        sum(row.weight_kg for row in within(2) if row.weight_kg is not None),
        sum(row.distance_km for row in within(2)),
        mean(weights),
        mean([row.distance_km for row in within(3)]),
        newest.weight_kg if newest else None,
        (moment - last).total_seconds() / 3600 if last else None,
    )


VIEWS: dict[str, tuple[Callable[..., tuple[object, ...]], list[datetime], timedelta, timedelta]] = {
    "depot_history": (deliveries, MIDNIGHTS, timedelta(days=7), timedelta(days=9)),
    "depot_parcels": (sendings, HOURS, timedelta(days=3), timedelta(days=4)),
}
"""View -> its definition, its moments, the longest window, and how long after a row it has one."""

_FIRST = datetime(2024, 3, 18, 23, tzinfo=UTC)
_SENT = st.one_of(
    st.integers(0, 14 * 24).map(lambda hour: timedelta(hours=hour)),
    st.integers(0, 14 * 86400 * 10**6).map(lambda us: timedelta(microseconds=us)),
)
_TAKEN = st.sampled_from([None, timedelta(0), timedelta(hours=1), timedelta(hours=24), timedelta(hours=30), timedelta(hours=47)])
PARCELS = st.lists(
    st.builds(
        lambda depot, sent, taken, weight, distance: Parcel(
            depot, _FIRST + sent, weight, distance, None if taken is None else _FIRST + sent + taken
        ),
        st.sampled_from(["north", "süd", None]),
        _SENT,
        _TAKEN,
        st.sampled_from([None, 0.0, 0.1, 20.5, 30.25]),
        st.integers(1, 900),
    ),
    max_size=14,
)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_holds_what_was_known_at_each_moment(view: str, project: Project, connection: duckdb.DuckDBPyConnection) -> None:
    define, moments, longest, reach = VIEWS[view]
    sql = compiled(project, view)

    # To find the smallest of the examples that fail takes minutes.
    @settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))
    @given(sent=PARCELS)
    def compare(sent: list[Parcel]) -> None:
        expected = {}
        for depot in {parcel.depot for parcel in sent if parcel.depot}:
            for moment in moments:
                known = [
                    row
                    for row in sent
                    if row.depot == depot and row.delivered_at and max(row.sent_at, row.delivered_at) <= moment
                ]
                happened = [row.delivered_at if view == "depot_history" else row.sent_at for row in known]
                if any(time and time > moment - reach for time in happened):
                    expected[depot, moment] = define(known, moment)
                elif any(time and time > moment - longest for time in happened):
                    raise AssertionError("a row in the window has a place in the view")
        found = rows_of(connection, sql, sent)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert found[key] == pytest.approx(values, nan_ok=False), key

    compare()


@pytest.fixture(scope="module")
def definitions(project: Project) -> dg.Definitions:
    """The project as its own process loads it."""
    with parcels.current_project_is(project.root):
        loaded = project_definitions()
        dg.Definitions.validate_loadable(loaded)
    return loaded


def test_a_spine_has_columns_of_any_name_and_keys_that_no_label_changes(project: Project) -> None:
    with duckdb.connect(str(project.root / "lake.duckdb")) as lake:
        spine = "SELECT row_key, is_rose, COLUMNS(*) FROM roses.spine WHERE snapshot_date = DATE '2024-03-31' ORDER BY 1"
        names = [column[0] for column in lake.execute(spine).description]
        rows = lake.execute(spine).fetchall()
    assert {"Länge (cm)", "order", "it's, {x}"} <= set(names)
    twins = [row for row in rows if row[names.index("order")] == 1]
    # Rows that are alike but for the label have one key, and a number each.
    assert len({key.partition("-")[0] for key, *_ in twins}) == 1
    assert sorted((key.partition("-")[2], is_rose) for key, is_rose, *_ in twins) == [("1", True), ("2", None)]


def test_parcels_that_are_under_way_stop_no_delivery(
    project: Project, definitions: dg.Definitions, make_lake: Callable[[], Lake]
) -> None:
    rows = ["parcel_id,sent_at,depot,weight_kg,distance_km,delivered_at"]
    for day in range(1, 15):
        for number in range(60):
            sent = datetime(2024, 2, day, 9, number, tzinfo=UTC)
            delivered = sent + timedelta(hours=20 + number % 9) if day < 13 else ""
            rows.append(f"{day}-{number},{sent},{('north', 'south', 'east')[number % 3]},{number % 30},{number + 5},{delivered}")
    (project.definitions_directory / "parcels" / "parcels.csv").write_text("\n".join(rows))
    asset = definitions.get_assets_def(dg.AssetKey(["raw", "parcels"]))
    tags = {"dagster/asset_partition_range_start": "2024-02-01", "dagster/asset_partition_range_end": "2024-02-14"}
    result = dg.materialize([asset], resources={"lake": make_lake()}, tags=tags)
    told = [check for check in result.get_asset_check_evaluations() if check.check_name == "delivery" and not check.passed]
    assert {check.severity for check in told} == {dg.AssetCheckSeverity.WARN}
    assert all("delivered_at" in str(check.description) for check in told)
    assert len(told) == 2


def test_the_project_loads_with_the_models_as_assets(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    groups = {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert groups["parcel_delay/spine"] == "parcel_delay"
    assert groups["features/depot_history"] == groups["features/parcels_statistics"] == "parcels_features"
    assert not any(key.startswith("configuration_error") for key in groups)
    spine, view = dg.AssetKey(["parcel_delay", "spine"]), dg.AssetKey(["features", "depot_history"])
    assert graph.get(spine).parent_keys == graph.get(view).parent_keys == {dg.AssetKey(["raw", "parcels"])}
    checks = {key.name for key in graph.asset_check_keys if key.asset_key in (spine, view)}
    assert any(name.startswith("unique_parcel_delay_spine") for name in checks)
    assert "contract" in checks
    assert sum("happens_within" in name or "unique_combination" in name for name in checks) == 2
