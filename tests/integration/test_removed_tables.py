"""Tables of a solution that is removed go from the lake, with the contracts of its feature views; those of others stay."""

from collections.abc import Callable

from mlops_assets.features.contracts import CONTRACTS_TABLE, recorded_contracts
from mlops_assets.lake.lake import Lake
from mlops_assets.operations.removal import drop_tables, find_tables


def test_only_the_tables_of_the_solution_go(make_lake: Callable[[], Lake]) -> None:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:
        for schema in ("parcels", "orders", "features", "raw", "staging"):
            connection.execute(f"CREATE SCHEMA {schema}")
        for table in ("raw.parcels", "parcels.spine", "parcels.predictions", "orders.spine", "features.depot", "features.shop"):
            connection.execute(f"CREATE TABLE {table} AS SELECT 1 AS id")
        connection.execute("CREATE VIEW staging.parcels AS SELECT * FROM raw.parcels")
        connection.execute(
            f"CREATE TABLE {CONTRACTS_TABLE} AS SELECT * FROM (VALUES ('depot', 1, 'id', 'INTEGER', 'a'), ('shop', 1, 'id', 'INTEGER', 'a')) "
            'r(view, version, "column", type, recorded_by)'
        )
    tables = find_tables(lake, "parcels", {"features.depot", "staging.parcels", "features.never_built"})
    assert tables == {
        "features.depot": "TABLE",
        "parcels.predictions": "TABLE",
        "parcels.spine": "TABLE",
        "staging.parcels": "VIEW",
    }
    drop_tables(lake, tables, ["depot"])
    assert find_tables(lake, "parcels", tables) == {}
    assert set(find_tables(lake, "orders", {"raw.parcels", "features.shop"})) == {"features.shop", "orders.spine", "raw.parcels"}
    with lake.connect(read_only=True) as connection:
        assert set(recorded_contracts(connection)) == {("shop", 1)}
