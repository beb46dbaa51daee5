"""`mlops schema` on a real lake: what is planned, what is applied, and what earlier snapshots keep."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.schema_evolution import RequestedChanges, likely_renames
from mlops_assets.lake.tables import column_types, current_snapshot
from mlops_assets.operations import table_schemas

MakeLake = Callable[[], Lake]
NOTHING = RequestedChanges(renamed={}, types={}, dropped=[])


@pytest.fixture(scope="module")
def lake(make_lake: MakeLake) -> Lake:
    return make_lake()


@pytest.fixture
def settings(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose lake is that of the tests."""
    monkeypatch.setattr(Lake, "from_settings", classmethod(lambda cls, settings: lake))
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS evolved; DROP TABLE IF EXISTS evolved.t")
        connection.execute(
            "CREATE TABLE evolved.t AS SELECT range AS id, (range * 0.5)::DOUBLE AS amount, 'v' || range AS code, "
            "range % 2 = 0 AS flag FROM range(10)"
        )
    return Settings(home=tmp_path)


def test_a_plan_counts_what_would_be_lost_and_changes_nothing(lake: Lake, settings: Settings) -> None:
    requested = RequestedChanges(
        renamed={"code": "label"}, types={"amount": "INTEGER", "id": "HUGEINT", "extra": "DATE"}, dropped=["flag"]
    )
    with pytest.raises(StackError, match="There is no column extra"):
        table_schemas.plan_table_changes(settings, "evolved.t", requested)
    both = RequestedChanges(renamed={"amount": "price"}, types={"amount": "INTEGER"}, dropped=[])
    planned = table_schemas.plan_table_changes(settings, "evolved.t", both)
    assert [str(change) for change in planned] == ["amount renamed to price", "price DOUBLE -> INTEGER"]
    requested = RequestedChanges(renamed={"code": "label"}, types={"amount": "INTEGER", "id": "HUGEINT"}, dropped=["flag"])
    with lake.connect(read_only=True) as connection:
        before = current_snapshot(connection)
    planned = table_schemas.plan_table_changes(settings, "evolved.t", requested)
    assert {str(change): change.lost for change in planned} == {
        "flag BOOLEAN dropped": 0,
        "code renamed to label": 0,
        "amount DOUBLE -> INTEGER": 5,
        "id BIGINT -> HUGEINT": 0,
    }
    with lake.connect(read_only=True) as connection:
        assert current_snapshot(connection) == before


def test_what_would_lose_values_is_applied_only_when_that_is_accepted(lake: Lake, settings: Settings) -> None:
    requested = RequestedChanges(renamed={"code": "label"}, types={"amount": "INTEGER"}, dropped=["flag"])
    with lake.connect(read_only=True) as connection:
        before = current_snapshot(connection)
    with pytest.raises(StackError, match=r"in 5 rows\. Nothing was changed"):
        table_schemas.apply_table_changes(settings, "evolved.t", requested, accept_loss=False)
    with lake.connect(read_only=True) as connection:
        assert current_snapshot(connection) == before
    table_schemas.apply_table_changes(settings, "evolved.t", requested, accept_loss=True)
    with lake.connect(read_only=True) as connection:
        assert column_types(connection, "lake.evolved.t") == {"id": "BIGINT", "label": "VARCHAR", "amount": "INTEGER"}
        rows = connection.execute("SELECT amount, label FROM evolved.t ORDER BY id").fetchall()
        assert rows == [(None if number % 2 else number // 2, f"v{number}") for number in range(10)]
        assert current_snapshot(connection) == before + 1
        former = connection.execute(f"SELECT sum(amount), min(code) FROM evolved.t AT (VERSION => {before})").fetchall()
        assert [float(former[0][0]), former[0][1]] == [22.5, "v0"]
    assert table_schemas.apply_table_changes(settings, "evolved.t", NOTHING, accept_loss=False) == []


def test_columns_are_those_that_the_yaml_of_a_raw_table_declares(lake: Lake, settings: Settings) -> None:
    with lake.connect(read_only=False) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw; DROP TABLE IF EXISTS raw.airlines")
        connection.execute("CREATE TABLE raw.airlines AS SELECT 1 AS carrier, 'x' AS title, 'f' AS _source, now() AS _loaded_at")
    planned = table_schemas.plan_table_changes(
        settings, "raw.airlines", RequestedChanges(renamed={"title": "name"}, types={}, dropped=[])
    )
    assert [str(change) for change in planned] == ["title renamed to name", "carrier INTEGER -> VARCHAR"]
    with pytest.raises(StackError, match="carrier cannot be dropped: it is declared"):
        table_schemas.plan_table_changes(settings, "raw.airlines", RequestedChanges(renamed={}, types={}, dropped=["carrier"]))


def test_a_renamed_column_is_found_by_its_values(lake: Lake) -> None:
    old = "(SELECT 'v' || range AS code, range % 2 = 0 AS flag FROM range(100))"
    with lake.connect(read_only=True) as connection:

        def renames(new: str, **added: str) -> list[tuple[str, str, float]]:
            gone = {"code": "VARCHAR", "flag": "BOOLEAN"}
            return likely_renames(connection, old=old, new=f"({new})", gone=gone, added=added)

        assert renames("SELECT 'v' || range AS label FROM range(50)", label="VARCHAR") == [("code", "label", 1.0)]
        assert renames("SELECT 'w' || range AS label FROM range(50)", label="VARCHAR") == []
        assert renames("SELECT range AS label FROM range(50)", label="BIGINT") == []
        # A value of a flag is in every other flag: only an alike name tells.
        assert renames("SELECT true AS is_flag", is_flag="BOOLEAN") == [("flag", "is_flag", 1.0)]
        assert renames("SELECT true AS paid", paid="BOOLEAN") == []
