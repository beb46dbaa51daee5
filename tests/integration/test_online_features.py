"""The asset `online_features` on a real lake: what changed is pushed, the store equals the lake, and a wrong value blocks what follows."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import late_inputs
import pytest
from redis_server import STORES

from mlops_assets.deployment.deployment import require_parity
from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.features.online_features import build_online_features
from mlops_assets.features.online_push import PushResult, describe_view, push_view
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.redis_store import RedisStore
from mlops_assets.online_store.store import FeatureRequest, OnlineStore
from mlops_assets.online_store.values import EntityValues, Flag, OnlineStoreError
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

pytestmark = pytest.mark.long

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
DECLARED = late_inputs.DECLARED | {
    "name": "arrivals",
    "spine": {"model": "spine", "key": "id", "prediction_time": "at_time", "label": "late", "label_time": "known_at"},
    "features": [{"view": "load"}, {"view": "place"}],
}
LOAD = FeatureView(
    model=late_inputs.model(
        "load", "features.load", ["place", "line", "moment", "day", "waiting", "share", "open", "note", "_loaded_at"], "day"
    ),
    version=1,
    entity=("place", "line"),
    event_timestamp="moment",
    freshness_days=2,
    owner=None,
)
PLACE = FeatureView(
    model=late_inputs.model("place", "features.place", ["place", "size"], None),
    version=1,
    entity=("place",),
    event_timestamp=None,
    freshness_days=None,
    owner=None,
)
INPUTS = SolutionInputs(
    solution=Solution.model_validate(DECLARED),
    spine=late_inputs.model("spine", "arrivals.spine", ["id", "day", "at_time", "place", "line", "late", "known_at"], "day"),
    views=(SelectedView(LOAD, LOAD.features), SelectedView(PLACE, PLACE.features)),
    request=(),
    derived={},
)
LOAD_REQUEST = FeatureRequest("load", 1, None)


@dataclass(frozen=True)
class World:
    """A lake with the views and the spine, an open connection that writes, and an empty store."""

    lake: Lake
    connection: duckdb.DuckDBPyConnection
    store: OnlineStore

    def insert(self, *rows: str) -> None:
        """Rows of `load`: place, line, hours after midnight, waiting, share, open, note; loaded one after another."""
        for row in rows:
            self.connection.execute(
                "INSERT INTO features.load SELECT p, l, TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_hours(h), "
                f"DATE '2020-01-01' + CAST(h // 24 AS INTEGER), w, s, o, n, now() FROM (VALUES ({row})) v(p, l, h, w, s, o, n)"
            )

    def push(self, *, rebuild: bool = False, view: FeatureView = LOAD) -> PushResult:
        return push_view(self.connection, self.store, view, snapshot=current_snapshot(self.connection), rebuild=rebuild)

    def online(self, place: Any, line: Any, moment: datetime = NOON) -> tuple[Any, ...] | Flag:
        """The values of `load`, or the flag that stands for them."""
        [row] = self.store.read([LOAD_REQUEST], [{"place": place, "line": line}], moment)
        flag = row.views["load"].flag
        return tuple(row.values.values()) if flag in (Flag.OK, Flag.NEWER) else flag

    def overwrite(self, place: str, line: int, hours: int, *values: Any) -> None:
        """Write `values` of `load` over those of an entity in the store, known since `hours` after midnight, as no push does."""
        state = self.store.state("load", 1)
        assert state is not None
        view = describe_view(self.connection, LOAD, state.snapshot)
        since = int((NOON.replace(hour=0) + timedelta(hours=hours)).timestamp() * 1e6)
        written = [EntityValues((place, line), since, values)]
        self.store.push(view, source=state.source, snapshot=state.snapshot, base=state, written=written, removed=[])

    def forget(self, place: str, line: int) -> None:
        """Take an entity of `load` out of the store, as no push does."""
        state = self.store.state("load", 1)
        assert state is not None
        view = describe_view(self.connection, LOAD, state.snapshot)
        self.store.push(view, source=state.source, snapshot=state.snapshot, base=state, written=[], removed=[(place, line)])

    def run(self, *, rebuild: bool = False, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
        """The asset, and one that stands for the deployment behind it."""

        @dg.asset(deps=[dg.AssetKey(["arrivals", "online_features"])])
        def deployment() -> None:
            """Runs when nothing blocks it."""

        config = {"ops": {"arrivals__online_features": {"config": {"rebuild": rebuild}}}}
        return dg.materialize(
            [build_online_features(INPUTS), deployment],
            resources={"lake": self.lake, "online_store": self.store},
            run_config=config,
            instance=instance,
            raise_on_error=False,
        )


@pytest.fixture(scope="module")
def shared_lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@pytest.fixture
def world(shared_lake: Lake, tmp_path: Path) -> Iterator[World]:
    with shared_lake.connect(read_only=False) as connection:
        connection.execute("DROP SCHEMA IF EXISTS features CASCADE")
        connection.execute("DROP SCHEMA IF EXISTS arrivals CASCADE")
        connection.execute("CREATE SCHEMA features")
        connection.execute("CREATE SCHEMA arrivals")
        connection.execute(
            "CREATE TABLE features.load (place VARCHAR, line INTEGER, moment TIMESTAMPTZ, day DATE, waiting BIGINT, share DOUBLE, "
            "open BOOLEAN, note VARCHAR, _loaded_at TIMESTAMPTZ)"
        )
        connection.execute("CREATE TABLE features.place AS SELECT 'p' || i AS place, i AS size FROM range(4) r(i)")
        connection.execute(
            "CREATE TABLE arrivals.spine AS SELECT i AS id, DATE '2020-01-01' AS day, TIMESTAMPTZ '2020-01-01 06:00:00+00' AS at_time, "
            "CASE WHEN i % 7 < 6 THEN 'p' || (i % 7) END AS place, CAST(i % 3 AS INTEGER) AS line, 0 AS late, "
            "TIMESTAMPTZ '2020-01-01 18:00:00+00' AS known_at FROM range(100) r(i)"
        )
        yield World(shared_lake, connection, LmdbStore(tmp_path / "store"))


def test_the_first_push_stores_the_newest_row_of_each_entity(world: World) -> None:
    world.insert(
        "'p1', 1, 3, 30, 0.1::DOUBLE, true, 'new'",
        "'p1', 1, 2, 20, 0.2::DOUBLE, true, 'old'",
        "'p1', 2, 1, NULL, 'NaN'::DOUBLE, false, ''",
        "NULL, 2, 9, 1, 1::DOUBLE, false, 'no join finds a null key'",
    )
    pushed = world.push()
    assert (pushed.state.entities, pushed.written, pushed.whole_view) == (2, 2, "first push")
    assert world.online("p1", 1) == (30, 0.1, True, "new")
    waiting, share, is_open, note = world.online("p1", 2)  # type: ignore[misc]
    assert (waiting, share != share, is_open, note) == (None, True, False, "")


def test_nothing_new_pushes_nothing(world: World) -> None:
    world.insert("'p1', 1, 3, 30, 0.1::DOUBLE, true, 'a'")
    first = world.push()
    again = world.push()
    assert (again.written, again.removed, again.state) == (0, 0, first.state)


@pytest.mark.parametrize("newer", [1, 2])
def test_a_store_that_is_newer_than_the_lake_is_filled_anew(world: World, newer: int) -> None:
    world.insert("'p1', 1, 3, 30, 0.1::DOUBLE, true, 'kept'")
    restored = current_snapshot(world.connection)
    world.insert(*["'p1', 1, 4, 40, 0.1::DOUBLE, true, 'lost with the machine'"] * newer)
    world.push()
    pushed = push_view(world.connection, world.store, LOAD, snapshot=restored, rebuild=False)
    assert pushed.whole_view == "the store is newer than the lake, which was restored"
    assert world.online("p1", 1) == (30, 0.1, True, "kept")


def test_a_partition_that_is_replaced_by_equal_rows_pushes_nothing(world: World) -> None:
    world.insert("'p1', 1, 3, 30, 'NaN'::DOUBLE, true, 'a'", "'p1', 2, 3, 30, NULL, NULL, NULL")
    world.push()
    world.connection.execute("BEGIN")
    world.connection.execute("CREATE OR REPLACE TEMP TABLE former AS FROM features.load")
    world.connection.execute("DELETE FROM features.load")
    world.connection.execute("INSERT INTO features.load SELECT * REPLACE (_loaded_at + INTERVAL 1 DAY AS _loaded_at) FROM former")
    world.connection.execute("COMMIT")
    pushed = world.push()
    assert (pushed.written, pushed.removed, pushed.whole_view) == (0, 0, None)
    assert pushed.state.snapshot == current_snapshot(world.connection)


def test_only_changed_entities_are_written(world: World) -> None:
    world.insert(*(f"'p{number}', 1, 3, {number}, 0::DOUBLE, true, 'a'" for number in range(5)))
    world.push()
    world.insert("'p1', 1, 4, 99, 0::DOUBLE, true, 'newer'", "'p2', 1, 1, 98, 0::DOUBLE, true, 'late and older'")
    pushed = world.push()
    assert (pushed.written, pushed.removed, pushed.state.entities, pushed.whole_view) == (1, 0, 5, None)
    assert world.online("p1", 1) == (99, 0.0, True, "newer")
    assert world.online("p2", 1) == (2, 0.0, True, "a")


def test_a_corrected_row_replaces_the_former_one(world: World) -> None:
    world.insert("'p1', 1, 3, 30, 0::DOUBLE, true, 'wrong'")
    world.push()
    world.connection.execute("UPDATE features.load SET note = 'right'")
    assert world.push().written == 1
    assert world.online("p1", 1) == (30, 0.0, True, "right")


def test_a_deleted_row_uncovers_the_one_before_it_and_the_last_one_takes_the_entity_away(world: World) -> None:
    world.insert("'p1', 1, 2, 20, 0::DOUBLE, true, 'before'", "'p1', 1, 3, 30, 0::DOUBLE, true, 'newest'")
    world.push()
    world.connection.execute("DELETE FROM features.load WHERE note = 'newest'")
    assert (world.push().written, world.online("p1", 1)) == (1, (20, 0.0, True, "before"))
    world.connection.execute("DELETE FROM features.load")
    pushed = world.push()
    assert (pushed.removed, pushed.state.entities, world.online("p1", 1)) == (1, 0, Flag.MISSING)


def test_after_any_sequence_of_writes_the_store_holds_the_newest_rows(world: World) -> None:
    chance = random.Random(4)
    for _ in range(25):
        for _ in range(chance.randrange(1, 4)):
            place, line, hours = chance.choice("abc"), chance.randrange(2), chance.randrange(30)
            match chance.randrange(4):
                case 0:
                    world.connection.execute(f"DELETE FROM features.load WHERE place = '{place}' AND line = {line}")
                case 1:
                    world.connection.execute("DELETE FROM features.load WHERE moment >= (SELECT max(moment) FROM features.load)")
                case 2:
                    world.connection.execute(
                        f"UPDATE features.load SET waiting = {chance.randrange(100)} WHERE place = '{place}'"
                    )
                case _:
                    # One row an entity and time, as the tests of the views demand.
                    moment = f"TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_hours({hours})"
                    world.connection.execute(
                        f"DELETE FROM features.load WHERE place = '{place}' AND line = {line} AND moment = {moment}"
                    )
                    world.insert(f"'{place}', {line}, {hours}, {chance.randrange(100)}, 0::DOUBLE, true, 'x'")
        pushed = world.push()
        newest = world.connection.execute(
            "SELECT place, line, arg_max(waiting, moment) FROM features.load GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert pushed.state.entities == len(newest)
        expected = {(place, line): waiting for place, line, waiting in newest}
        for place in "abc":
            for line in range(2):
                found = world.online(place, line)
                assert (found if isinstance(found, Flag) else found[0]) == expected.get((place, line), Flag.MISSING)


def test_a_table_that_was_created_anew_is_read_as_a_whole(world: World) -> None:
    assert world.push(view=PLACE).state.entities == 4
    world.connection.execute(
        "CREATE OR REPLACE TABLE features.place AS SELECT 'p' || i AS place, i + 1 AS size FROM range(2) r(i)"
    )
    pushed = world.push(view=PLACE)
    assert (pushed.whole_view, pushed.state.entities) == ("the table was created anew", 2)


def test_expired_snapshots_lead_to_the_whole_view(world: World) -> None:
    world.insert("'p1', 1, 3, 30, 0::DOUBLE, true, 'a'")
    world.push()
    world.insert("'p1', 1, 4, 40, 0::DOUBLE, true, 'b'")
    world.connection.execute("CALL ducklake_expire_snapshots('lake', older_than => now() + INTERVAL 1 DAY)")
    pushed = world.push()
    assert pushed.whole_view == "snapshots since the last push have expired"
    assert world.online("p1", 1) == (40, 0.0, True, "b")


def test_another_limit_or_column_leads_to_the_whole_view(world: World) -> None:
    world.insert("'p1', 1, 3, 30, 0::DOUBLE, true, 'a'")
    world.push()
    pushed = world.push(view=replace(LOAD, freshness_days=9))
    assert pushed.whole_view == "the view's columns or limits changed"


def test_a_type_that_cannot_be_held_exactly_is_refused_with_the_remedy(world: World) -> None:
    world.connection.execute("CREATE OR REPLACE TABLE features.place AS SELECT 'p' AS place, 1.5::DECIMAL(9, 2) AS size")
    with pytest.raises(OnlineStoreError, match=r"Column size of feature view place is DECIMAL\(9,2\).*cast it to one of VARCHAR"):
        world.push(view=PLACE)


def test_the_asset_pushes_all_views_and_online_equals_offline(world: World) -> None:
    world.insert(*(f"'p{number}', {number % 3}, {number * 24}, {number}, 0.1::DOUBLE, true, 'a'" for number in range(5)))
    result = world.run()
    assert result.success
    [check] = result.get_asset_check_evaluations()
    assert check.passed
    # Of the 21 entities of the spine (a null place is one of them), `load` has 5 and `place` 12, with four features and one.
    assert (check.metadata["entities"].value, check.metadata["compared_values"].value) == (21, 32)
    assert check.metadata["values_of_view"].value == {"load": 20, "place": 12}
    # At 96 h only the values of 48 h and later count.
    flags = check.metadata["flags"].value
    assert flags == {
        "load: missing": 13,
        "load: ok": 3,
        "load: stale": 2,
        "load: wrong_key": 3,
        "place: missing": 6,
        "place: ok": 12,
        "place: wrong_key": 3,
    }
    metadata = result.asset_materializations_for_node("arrivals__online_features")[0].metadata
    views = {record["view"]: record for record in (r.data for r in metadata["views"].records)}  # type: ignore[attr-defined]
    assert views["load v1"]["entities"] == 5
    assert views["place v1"]["read"] == "whole view: first push"


def test_a_tampered_value_is_found_blocks_and_is_mended_by_a_rebuild(world: World) -> None:
    world.insert("'p1', 1, 3, 30, 0.1::DOUBLE, true, 'a'", "'p2', 2, 4, 40, 0.2::DOUBLE, true, 'b'")
    assert world.run().success
    world.overwrite("p2", 2, 4, 40, 0.2000001, True, "b")

    with dg.DagsterInstance.ephemeral() as instance:
        result = world.run(instance=instance)
        # A deployment in a run of its own is refused too.
        with pytest.raises(dg.Failure, match=r"1 of \d+ values differ.*The champion stays"):
            require_parity(instance, INPUTS)
    assert not result.success
    [check] = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.blocking
    assert [record.data for record in check.metadata["first_differences"].records] == [  # type: ignore[attr-defined]
        {"entity": "place='p2', line=2", "feature": "share", "online": "0.2000001", "offline": "0.2"}
    ]
    assert not result.asset_materializations_for_node("deployment")

    with dg.DagsterInstance.ephemeral() as instance:
        assert world.run(rebuild=True, instance=instance).success
        require_parity(instance, INPUTS)


@pytest.fixture(params=STORES)
def stale_world(request: pytest.FixtureRequest, world: World) -> World:
    """A world on each kind of store, whose values of p1 and p2 are older than the two days that the view allows."""
    if request.param != "lmdb":
        world = replace(world, store=RedisStore(request.getfixturevalue(f"{request.param}_url")))
    world.insert(
        "'p1', 1, 3, 30, 0.1::DOUBLE, true, 'a'",
        "'p2', 2, 3, 40, 0.2::DOUBLE, false, 'b'",
        "'elsewhere', 1, 100, 1, 1::DOUBLE, true, ''",
    )
    assert world.run().success
    assert world.online("p2", 2, NOON + timedelta(days=3)) is Flag.STALE
    return world


def first_differences(result: dg.ExecuteInProcessResult) -> list[tuple[Any, ...]]:
    [check] = result.get_asset_check_evaluations()
    return [tuple(record.data.values()) for record in check.metadata["first_differences"].records]  # type: ignore[attr-defined]


def test_values_of_one_entity_over_those_of_another_are_found_though_all_are_stale(stale_world: World) -> None:
    stale_world.overwrite("p2", 2, 3, 30, 0.1, True, "a")
    result = stale_world.run()
    assert not result.success
    assert first_differences(result) == [
        ("place='p2', line=2", "waiting", "30", "40"),
        ("place='p2', line=2", "share", "0.1", "0.2"),
        ("place='p2', line=2", "open", "True", "False"),
        ("place='p2', line=2", "note", "'a'", "'b'"),
    ]
    assert stale_world.run(rebuild=True).success


def test_a_stale_entity_that_the_store_lost_is_found(stale_world: World) -> None:
    stale_world.forget("p2", 2)
    assert ("place='p2', line=2", "waiting", "None", "40") in first_differences(stale_world.run())


def test_the_same_values_of_another_time_are_found(stale_world: World) -> None:
    stale_world.overwrite("p2", 2, 2, 40, 0.2, False, "b")
    assert first_differences(stale_world.run()) == [
        ("place='p2', line=2", "_load_event_timestamp", "2020-01-01T02:00:00+00:00", "2020-01-01T03:00:00+00:00")
    ]


def test_a_comparison_of_nothing_fails_and_blocks_with_the_remedy(world: World) -> None:
    world.connection.execute("UPDATE features.place SET place = 'far ' || place")
    with dg.DagsterInstance.ephemeral() as instance:
        result = world.run(instance=instance)
        with pytest.raises(dg.Failure, match=r"failed its check online_offline_parity: nothing was compared.*The champion stays"):
            require_parity(instance, INPUTS)
    [check] = result.get_asset_check_evaluations()
    assert (check.passed, check.blocking, check.metadata["compared_values"].value) == (False, True, 0)
    assert "21 entities" in str(check.description)
    assert not result.asset_materializations_for_node("deployment")


def test_a_refusal_tells_apart_what_failed_and_what_never_ran(world: World) -> None:
    key, name = INPUTS.key("online_features"), "online_offline_parity"
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(dg.Failure, match="its check online_offline_parity has never run"):
            require_parity(instance, INPUTS)
        # The run that plans the check has no result yet, or ended without one.
        world.connection.execute("ALTER TABLE features.place RENAME TO elsewhere")
        failed = world.run(instance=instance)
        with pytest.raises(dg.Failure, match=f"run {failed.run_id} ended before it gave one"):
            require_parity(instance, INPUTS)
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(key, name, passed=False, metadata={}, description="3 of 9 values differ", blocking=True)
        )
        world.run(instance=instance)
        with pytest.raises(dg.Failure, match=r"failed its check online_offline_parity: 3 of 9 values differ"):
            require_parity(instance, INPUTS)
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, name, passed=True, metadata={}, blocking=True))
        world.run(instance=instance)
        require_parity(instance, INPUTS)


def test_a_view_that_was_never_built_is_named(world: World) -> None:
    world.connection.execute("DROP TABLE features.place")
    result = world.run()
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "The lake lacks features.place" in str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
