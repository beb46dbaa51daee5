"""A solution in a Dagster project of somebody's own: its spine and its feature view are tables that Python assets write into the lake."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import parcels
import pytest

from mlops_assets.components.project import with_platform
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.local.prepare import prepare

pytestmark = pytest.mark.long

ASSETS = """
import dagster as dg

from mlops_assets.lake.lake import Lake

DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-05-01")


def _write(lake: Lake, table: str, query: str) -> None:
    with lake.connect(read_only=False) as connection:
        lake.replace(connection, table=table, query=query, partition_range=None, author="shop")


@dg.asset(key=["shop", "shipments"], partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def shipments(lake: dg.ResourceParam[Lake]) -> None:
    # A parcel every hour, late where it rains but for a quarter of them.
    _write(lake, "shop.shipments", '''
        SELECT 'p' || epoch(sent)::bigint AS parcel_id, sent::date AS sent_date, sent AS sent_at, 'd' || (hour(sent) % 3) AS depot,
            (1.5 * hour(sent))::double AS weight_kg, ((day(sent) % 3 = 0) <> (hash(sent) % 4 = 0))::integer AS is_late,
            sent + INTERVAL 2 DAY AS known_at
        FROM range(TIMESTAMPTZ '2024-01-01 00:00:00+00', TIMESTAMPTZ '2024-03-01 00:00:00+00', INTERVAL 1 HOUR) t(sent)
    ''')


@dg.asset(key=["weather", "depots"])
def depot_weather(lake: dg.ResourceParam[Lake]) -> None:
    _write(lake, "shop.weather", '''
        SELECT 'd' || depot AS depot, day AS event_timestamp, (day(day) % 3 = 0)::integer AS rain
        FROM range(TIMESTAMPTZ '2024-01-01 00:00:00+00', TIMESTAMPTZ '2024-03-01 00:00:00+00', INTERVAL 1 DAY) t(day), range(3) d(depot)
    ''')


@dg.asset
def sales() -> int:
    return 1


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[shipments, depot_weather, sales])
"""

SOURCES = """
sources:
  - name: shop
    database: lake
    schema: shop
    tables:
      - name: shipments
        description: Parcels, one row a parcel.
        config: {meta: {partition_column: sent_date}}
        columns:
          - {name: parcel_id, data_type: varchar, description: Parcel}
          - {name: sent_date, data_type: date, description: Date of sent_at}
          - {name: sent_at, data_type: timestamp with time zone, description: When it left}
          - {name: depot, data_type: varchar, description: Depot}
          - {name: weight_kg, data_type: double, description: Weight}
          - {name: is_late, data_type: integer, description: Label}
          - {name: known_at, data_type: timestamp with time zone, description: When it was delivered}
      - name: depot_weather
        identifier: weather
        description: Weather at a depot.
        config:
          meta:
            dagster: {asset_key: [weather, depots]}
            feature_view: {entity: [depot], event_timestamp: event_timestamp, freshness_days: 3}
        columns:
          - {name: depot, data_type: varchar, description: Depot}
          - {name: event_timestamp, data_type: timestamp with time zone, description: Known from}
          - {name: rain, data_type: integer, description: Whether it rains}
"""

SOLUTION = """type: mlops_assets.MLSolution
attributes:
  name: shipment_delay
  description: Probability that a parcel is late.
  owners: [team:logistics]
  problem: binary_classification
  partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01}
  spine: {model: shipments, key: parcel_id, prediction_time: sent_at, label: is_late, label_time: known_at}
  features:
    - request: [weight_kg]
    - {view: depot_weather}
  training:
    window: 30d
    holdout: 5d
    metric: roc_auc
    estimator: {type: sklearn.linear_model.LogisticRegression}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project: assets of its own in `defs/shop`, which dbt knows as sources, and a solution on them."""
    root = tmp_path_factory.mktemp("warehouse")
    project = parcels.parcels_project(root, module="warehouse")
    parcels.declare(project, "shipment_delay", SOLUTION)
    (project.definitions_directory / "shop").mkdir()
    (project.definitions_directory / "shop" / "__init__.py").touch()
    (project.definitions_directory / "shop" / "assets.py").write_text(ASSETS)
    (project.dbt_project / "models").mkdir()
    (project.dbt_project / "models" / "__shop.yml").write_text(SOURCES)
    return root


@pytest.fixture(scope="module")
def definitions(root: Path) -> Iterator[dg.Definitions]:
    """The definitions of the project as Dagster's own loader gives them, with what the platform adds."""
    with parcels.current_project_is(root):
        prepare(replace(Settings.from_environment(), home=root / ".mlops"))
        yield with_platform(dg.load_from_defs_folder(path_within_project=root / "warehouse" / "defs"))


def test_the_graph_leads_from_the_assets_of_the_project_to_the_solution(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey(["shipment_delay", "training_dataset"])).parent_keys}
    assert parents == {"shop/shipments", "weather/depots"}
    assert graph.has(dg.AssetKey("sales"))


def test_a_dataset_is_made_of_the_tables_of_other_assets(definitions: dg.Definitions, make_lake: Callable[[], Lake]) -> None:
    lake = make_lake()
    keys = [dg.AssetKey(path) for path in (["shop", "shipments"], ["weather", "depots"], ["shipment_delay", "training_dataset"])]
    assets = [definitions.get_assets_def(key) for key in keys]
    for asset, tags in (
        (assets[0], {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-02-29"}),
        (assets[1], {}),
        (assets[2], {"dagster/partition": "2024-02-20"}),
    ):
        partition = tags.get("dagster/partition")
        assert dg.materialize(
            [asset], resources={"lake": lake, "settings": Settings.from_environment()}, tags=tags, partition_key=partition
        ).success
    with lake.connect(read_only=True) as connection:
        [(rows, with_rain)] = connection.execute(
            "SELECT count(*), count(*) FILTER (rain = (day(sent_at) % 3 = 0)::integer) FROM lake.shipment_delay.training_dataset"
        ).fetchall()
    # 30 days without the two whose labels were not known by then, and the two before the hold-out that were not known at its start; and the
    # 20 days before the window.
    assert rows == with_rain == (26 + 20) * 24
