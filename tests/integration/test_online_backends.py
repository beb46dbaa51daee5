"""What every online store promises, on LMDB and on a real Redis: exact values, flags, and pushes that are seen whole or not at all.

Which Redis: `tests/redis_server.py`.
"""

import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis_server import REDIS_SERVER, STORES, saving_redis
from waiting import wait_for

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.environment_owner import claim_stores
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.redis_store import RedisStore
from mlops_assets.online_store.store import (
    FeatureRequest,
    OnlineRow,
    OnlineStore,
    PushConflictError,
    UnknownOnlineViewError,
    open_online_store,
)
from mlops_assets.online_store.values import (
    Column,
    EntityValues,
    Flag,
    Key,
    OnlineStoreError,
    OnlineView,
    ViewState,
    ViewValues,
)
from mlops_assets.stages.faults import lacks_room

MOMENT = datetime(2020, 1, 10, tzinfo=UTC)
FORK = multiprocessing.get_context("fork")

Open = Callable[[], OnlineStore]


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open the store; every call gives a new client of the same one."""
    if request.param == "lmdb":
        return lambda: LmdbStore(tmp_path / "store")
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda: RedisStore(url)


@pytest.fixture
def store(open_store: Open) -> OnlineStore:
    return open_store()


def make_view(name: str) -> OnlineView:
    """A view of one text key."""
    return OnlineView(
        name=name,
        version=1,
        entity=(Column("id", "string"),),
        features=(Column("a", "float"), Column("b", "integer")),
        timed=True,
        freshness_days=3,
    )


@pytest.fixture
def view() -> OnlineView:
    """A view whose name nothing else uses, so that a Redis may be shared."""
    return make_view(f"test_{uuid4().hex}")


def microseconds(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def entity(key: Any, *values: Any, at: datetime = MOMENT) -> EntityValues:
    return EntityValues(key if isinstance(key, tuple) else (key,), microseconds(at), values)


def push(
    store: OnlineStore,
    view: OnlineView,
    written: Sequence[EntityValues],
    *,
    snapshot: int = 1,
    base: ViewState | None = None,
    removed: Sequence[Key] = (),
) -> ViewState:
    return store.push(view, source="features.t 1", snapshot=snapshot, base=base, written=written, removed=removed)


def request(view: OnlineView, *features: str) -> FeatureRequest:
    return FeatureRequest(view.name, view.version, features or None)


def flags(row: OnlineRow) -> dict[str, Flag]:
    return {name: view.flag for name, view in row.views.items()}


def test_values_keep_their_types_exactly(store: OnlineStore, view: OnlineView) -> None:
    values = [0.1, -0.0, math.inf, 5e-324, float("nan"), 1.0, 1, 0, 2**63 - 1, -(2**63), True, False, None, "", "Zürich ✈", "1"]
    wide = replace(view, features=tuple(Column(f"f{number}", "float") for number in range(len(values))))
    push(store, wide, [entity("x", *values)])
    [row] = store.read([request(wide)], [{"id": "x"}], MOMENT)
    assert [(type(value), repr(value)) for value in row.values.values()] == [(type(value), repr(value)) for value in values]


def test_several_views_and_entities_in_one_call(store: OnlineStore, view: OnlineView) -> None:
    pair = replace(view, name=view.name + "_pair", entity=(Column("id", "string"), Column("line", "integer")))
    push(store, view, [entity("x", 0.5, 1), entity("y", 0.6, 2)])
    push(store, pair, [entity(("x", 7), 0.7, 3)])
    asked = [{"id": "x", "line": 7}, {"id": "y", "line": 7, "more": "is ignored"}]
    rows = store.read([request(view, "b"), request(pair, "a")], asked, MOMENT)
    assert [row.values for row in rows] == [{"b": 1, "a": 0.7}, {"b": 2, "a": None}]
    assert [flags(row) for row in rows] == [
        {view.name: Flag.OK, pair.name: Flag.OK},
        {view.name: Flag.OK, pair.name: Flag.MISSING},
    ]
    assert store.read([request(view)], [], MOMENT) == []


@pytest.mark.parametrize("key", [None, 5, 5.0, True, b"x", ["x"], {"id": "x"}, float("nan"), "\ud800"])
def test_what_cannot_be_a_key_is_flagged(store: OnlineStore, view: OnlineView, key: Any) -> None:
    push(store, view, [entity("x", 0.5, 1)])
    for asked in ({"id": key}, {}):
        [row] = store.read([request(view)], [asked], MOMENT)
        assert (row.values, flags(row)) == ({"a": None, "b": None}, {view.name: Flag.WRONG_KEY})


@pytest.mark.parametrize("key", [None, "5", 5.0, True, 2**64, -(2**70)])
def test_what_cannot_be_a_whole_number_is_flagged(store: OnlineStore, view: OnlineView, key: Any) -> None:
    numbered = replace(view, entity=(Column("id", "integer"),))
    push(store, numbered, [entity(5, 0.5, 1), entity(1, 0.5, 1)])
    [row] = store.read([request(numbered)], [{"id": key}], MOMENT)
    assert flags(row) == {view.name: Flag.WRONG_KEY}


def test_unknown_entities_are_missing_however_long_their_keys(store: OnlineStore, view: OnlineView) -> None:
    longest = "k" * 100_000
    push(store, view, [entity("x", 0.5, 1), entity(longest, 0.6, 2)])
    rows = store.read([request(view)], [{"id": "y"}, {"id": longest + "k"}, {"id": ""}], MOMENT)
    assert [flags(row) for row in rows] == [{view.name: Flag.MISSING}] * 3
    assert store.read([request(view)], [{"id": longest}], MOMENT)[0].values["b"] == 2


def test_values_are_stale_after_the_limit_by_the_clock_of_the_data(store: OnlineStore, view: OnlineView) -> None:
    limit = MOMENT + timedelta(days=3)
    push(store, view, [entity("x", 0.5, 1)])
    [fresh] = store.read([request(view)], [{"id": "x"}], limit)
    [stale] = store.read([request(view)], [{"id": "x"}], limit + timedelta(microseconds=1))
    assert (fresh.values["b"], flags(fresh)) == (1, {view.name: Flag.OK})
    assert stale.values == {"a": None, "b": None}
    assert stale.views == {view.name: ViewValues(version=1, flag=Flag.STALE, snapshot=1, event_timestamp=MOMENT)}


def test_values_that_became_known_after_the_moment_are_given_and_flagged(store: OnlineStore, view: OnlineView) -> None:
    push(store, view, [entity("x", 0.5, 1)])
    rows = store.reader((request(view),)).read([{"id": "x"}] * 2, [MOMENT, MOMENT - timedelta(microseconds=1)])
    assert [(row.values["b"], row.views[view.name].flag) for row in rows] == [(1, Flag.OK), (1, Flag.NEWER)]


def test_a_view_without_times_or_limit_is_never_stale(store: OnlineStore, view: OnlineView) -> None:
    static = replace(view, timed=False, freshness_days=None)
    state = store.push(static, source="t", snapshot=1, base=None, written=[EntityValues(("x",), 0, (0.5, 1))], removed=[])
    assert state.newest is None
    [row] = store.read([request(static)], [{"id": "x"}], MOMENT + timedelta(days=9999))
    assert row.views == {view.name: ViewValues(version=1, flag=Flag.OK, snapshot=1, event_timestamp=None)}


def test_changes_are_applied_to_the_state_they_start_from(store: OnlineStore, view: OnlineView) -> None:
    first = push(store, view, [entity("x", 0.5, 1), entity("y", 0.5, 1), entity("z", 0.5, 1)])
    later = MOMENT + timedelta(hours=1)
    second = push(
        store, view, [entity("x", 0.6, 2, at=later), entity("new", 0.7, 3)], snapshot=2, base=first, removed=[("y",), ("q",)]
    )
    assert (second.snapshot, second.entities, second.newest) == (2, 3, microseconds(later))
    assert store.state(view.name, 1) == second
    rows = store.read([request(view)], [{"id": key} for key in ("x", "y", "z", "new")], MOMENT)
    assert [row.values["b"] for row in rows] == [2, None, 1, 3]
    assert store.event_timestamps(view, [("x",), ("y",)]) == [microseconds(later), None]
    with pytest.raises(PushConflictError, match="pushed by another process meanwhile"):
        push(store, view, [entity("x", 0.1, 9)], snapshot=3, base=first)
    assert store.read([request(view)], [{"id": "x"}], MOMENT)[0].values["b"] == 2


def test_a_whole_push_forgets_what_was_there_and_touches_no_other_view(store: OnlineStore, view: OnlineView) -> None:
    newer = replace(view, version=2)
    push(store, view, [entity("x", 0.5, 1), entity("y", 0.5, 1)])
    push(store, newer, [entity("x", 0.5, 5)])
    assert push(store, view, [entity("z", 0.5, 2)], snapshot=2).entities == 1
    rows = store.read([request(view)], [{"id": "x"}, {"id": "z"}], MOMENT)
    assert [row.values["b"] for row in rows] == [None, 2]
    assert push(store, view, [], snapshot=3).entities == 0
    assert store.read([request(view)], [{"id": "z"}], MOMENT)[0].views[view.name].flag is Flag.MISSING
    assert store.read([request(newer)], [{"id": "x"}], MOMENT)[0].values["b"] == 5


def test_what_was_never_pushed_is_named_with_the_remedy(store: OnlineStore, view: OnlineView) -> None:
    with pytest.raises(UnknownOnlineViewError, match=f"{view.name} version 1 is not in the online store: materialize"):
        store.read([request(view)], [{"id": "x"}], MOMENT)
    push(store, view, [entity("x", 0.5, 1)])
    with pytest.raises(UnknownOnlineViewError, match="has no c online: it has a, b"):
        store.read([request(view, "c")], [{"id": "x"}], MOMENT)
    with pytest.raises(OnlineStoreError, match=r"\(None,\) cannot be the entity"):
        push(store, view, [entity(None, 0.5, 1)])


def test_a_reader_follows_a_change_of_the_columns(open_store: Open, view: OnlineView) -> None:
    reading, pushing = open_store(), open_store()
    push(pushing, view, [entity("x", 0.5, 1)])
    reader = reading.reader((request(view),))
    assert reader.read([{"id": "x"}], [MOMENT])[0].values == {"a": 0.5, "b": 1}
    other = replace(view, entity=(Column("number", "integer"),), features=(Column("c", "string"), *view.features))
    push(pushing, other, [entity(4, "new", 0.6, 2)], snapshot=2)
    assert reader.read([{"number": 4}], [MOMENT])[0].values == {"c": "new", "a": 0.6, "b": 2}


def test_a_forked_process_reads_and_pushes_beside_its_parent(store: OnlineStore, view: OnlineView) -> None:
    first = push(store, view, [entity("x", 0.5, 1)])
    assert store.read([request(view)], [{"id": "x"}], MOMENT)[0].values["b"] == 1
    receiver, sender = FORK.Pipe()

    def child() -> None:
        seen = store.read([request(view)], [{"id": "x"}], MOMENT)[0].values["b"]
        push(store, view, [entity("x", 0.5, seen + 1)], snapshot=2, base=first)
        sender.send(seen)

    process = FORK.Process(target=child)
    process.start()
    assert receiver.poll(30)
    assert receiver.recv() == 1
    process.join()
    assert process.exitcode == 0
    assert store.read([request(view)], [{"id": "x"}], MOMENT)[0].values["b"] == 2


def push_generations(store: OnlineStore, view: OnlineView, stop: Any) -> None:
    """Push again and again, whole and as changes in turn; all values of one push are its number."""
    state, generation = None, 0
    while not stop.is_set():
        generation += 1
        base = state if generation % 3 else None
        state = push(store, view, [entity(str(n), 0.5, generation) for n in range(300)], snapshot=generation, base=base)


def test_readers_never_see_half_a_push(open_store: Open, view: OnlineView) -> None:
    store = open_store()
    push(store, view, [entity(str(n), 0.5, 0) for n in range(300)])
    asked = [{"id": str(n)} for n in range(0, 300, 7)]
    stop = FORK.Event()
    process = FORK.Process(target=push_generations, args=(open_store(), view, stop))
    process.start()
    seen = []
    deadline = time.monotonic() + 60
    while len(set(seen)) < 20 and time.monotonic() < deadline:
        rows = store.read([request(view)], asked, MOMENT)
        generations = {row.values["b"] for row in rows}
        assert len(generations) == 1, generations
        seen.append(generations.pop())
    stop.set()
    process.join()
    assert process.exitcode == 0
    assert len(set(seen)) >= 20
    assert seen == sorted(seen)


class Halfway(dict[bytes, bytes]):
    """Values to write; whoever iterates them gets the first half, and then waits for ever."""

    def __init__(self, values: dict[bytes, bytes], sender: Any):
        super().__init__(values)
        self.sender = sender

    def items(self) -> Any:
        """See above."""
        for number, item in enumerate(super().items()):
            if number == len(self) // 2:
                self.sender.send("halfway")
                time.sleep(3600)
            yield item


def push_and_stop_halfway(store: LmdbStore, view: OnlineView, sender: Any) -> None:
    """Begin to replace all values, and stop inside the transaction."""
    apply = store._apply
    store._apply = lambda encoded: apply(replace(encoded, written=Halfway(dict(encoded.written), sender)))  # type: ignore[method-assign]
    push(store, view, [entity(str(n), 0.5, 999) for n in range(50_000)], snapshot=2)


def test_lmdb_keeps_the_former_values_when_a_push_is_killed(tmp_path: Path, view: OnlineView) -> None:
    store = LmdbStore(tmp_path / "store")
    state = push(store, view, [entity(str(n), 0.5, n) for n in range(1000)])
    receiver, sender = FORK.Pipe()
    process = FORK.Process(target=push_and_stop_halfway, args=(LmdbStore(tmp_path / "store"), view, sender))
    process.start()
    assert receiver.poll(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_former_values(store, view, state)
    assert_former_values(LmdbStore(tmp_path / "store"), view, state)
    # The lock that the dead process held is free, and nothing of its values is left.
    after = push(store, view, [entity("0", 0.5, 7)], snapshot=3, base=state)
    assert (after.entities, after.snapshot) == (1000, 3)


if "redis" in STORES:

    @pytest.mark.long
    def test_redis_keeps_the_former_values_when_a_push_is_killed(redis_url: str, view: OnlineView) -> None:
        store, client = RedisStore(redis_url), redis.Redis.from_url(redis_url)
        state = push(store, view, [entity(str(n), 0.5, n) for n in range(1000)])
        script = (
            "import sys; sys.path[:0] = sys.argv[3:]; import test_online_backends as t\n"
            "values = [t.entity(str(n), 0.5, 999) for n in range(400_000)]\n"
            "t.push(t.RedisStore(sys.argv[1]), t.make_view(sys.argv[2]), values, snapshot=2)\n"
        )
        folders = map(str, Path(__file__).parents[:2])
        process = subprocess.Popen([sys.executable, "-c", script, redis_url, view.name, *folders])
        deadline = time.monotonic() + 120
        # The values are on the server, beside the former ones, when the process dies.
        while not (begun := list(client.scan_iter("mlops:online:next:*"))) or client.hlen(begun[0]) < 10_000:
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.kill()
        process.wait()
        assert_former_values(store, view, state)
        assert 0 < client.ttl(begun[0]) <= 3600
        client.delete(*begun)
        assert push(store, view, [entity("0", 0.5, 7)], snapshot=3, base=state).entities == 1000

    def test_a_redis_is_of_one_environment(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(home=tmp_path, redis_url=redis_url)
        monkeypatch.setenv("MLOPS_ENV", "prod")
        for _ in range(2):
            claim_stores(settings)
        monkeypatch.setenv("MLOPS_ENV", "dev")
        with pytest.raises(
            StackError, match="The Redis of MLOPS_REDIS_URL is of the environment prod, and this process is of dev"
        ):
            claim_stores(settings)
        redis.Redis.from_url(redis_url).delete("mlops:environment")

    def test_the_settings_choose_redis(redis_url: str, tmp_path: Path) -> None:
        assert isinstance(open_online_store(Settings(home=tmp_path, redis_url=redis_url)), RedisStore)


def assert_former_values(store: OnlineStore, view: OnlineView, state: ViewState) -> None:
    assert store.state(view.name, view.version) == state
    rows = store.read([request(view)], [{"id": str(n)} for n in range(1000)], MOMENT)
    assert [row.values["b"] for row in rows] == list(range(1000))
    assert store.read([request(view)], [{"id": "1000"}], MOMENT)[0].views[view.name].flag is Flag.MISSING


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_redis_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    with pytest.raises(OnlineStoreError, match=r"Redis at 127\.0\.0\.1:1 does not answer.*correct MLOPS_REDIS_URL") as raised:
        RedisStore(f"{scheme}://me:secret@127.0.0.1:1/0").state("view", 1)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("saves", [running for running in (saving_redis,) if REDIS_SERVER])
def test_a_redis_whose_disk_is_full_answers_on_and_takes_a_push_once_there_is_room(
    saves: Callable[[Path], AbstractContextManager[tuple[int, str]]], tmp_path: Path, view: OnlineView
) -> None:
    def push_and_save(snapshot: int) -> ViewState:
        state = push(store, view, [entity("x", 0.5, snapshot)], snapshot=snapshot)
        wait_for(lambda: not client.info("persistence")["rdb_bgsave_in_progress"])
        # Now, instead of within five seconds.
        client.bgsave()
        return state

    with saves(tmp_path) as (process, url):
        store, client = RedisStore(url), redis.Redis.from_url(url)
        push_and_save(1)
        # No file of it may become longer: a save fails as on a full disk.
        resource.prlimit(process, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        with pytest.raises(redis.ResponseError) as refused:
            wait_for(lambda: push_and_save(2).snapshot != 2)
        assert lacks_room(refused.value), "its step waits for room, and fails for nothing else"
        [row] = store.read([request(view, "a")], [{"id": "x"}], MOMENT)
        assert row.values == {"a": 0.5}
        resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")
        assert push(store, view, [entity("x", 0.7, 3)], snapshot=3).snapshot == 3


def test_a_redis_without_memory_left_lacks_room() -> None:
    assert lacks_room(redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
    assert not lacks_room(redis.ResponseError("WRONGTYPE"))


def test_the_map_grows_when_it_is_full_and_open_readers_follow(tmp_path: Path, view: OnlineView) -> None:
    directory = tmp_path / "store"
    push(LmdbStore(directory, map_bytes=1 << 17), view, [entity("x", 0.5, 1)])
    receiver, sender = FORK.Pipe()
    go = FORK.Event()

    def child() -> None:
        store = LmdbStore(directory, map_bytes=1 << 17)
        sender.send(store.read([request(view)], [{"id": "x"}], MOMENT)[0].values["b"])
        go.wait()
        sender.send(store.read([request(view)], [{"id": "x"}, {"id": "19999"}], MOMENT)[1].values["b"])
        push(store, view, [entity(str(n), 0.5, 2) for n in range(40_000)], snapshot=3)
        sender.send("pushed")

    process = FORK.Process(target=child)
    process.start()
    assert receiver.recv() == 1
    push(LmdbStore(directory), view, [entity("x", 0.5, 1), *(entity(str(n), 0.5, n) for n in range(20_000))], snapshot=2)
    go.set()
    assert receiver.poll(60)
    assert receiver.recv() == 19_999
    assert receiver.poll(60)
    assert receiver.recv() == "pushed"
    process.join()
    assert LmdbStore(directory).read([request(view)], [{"id": "39999"}], MOMENT)[0].values["b"] == 2
    assert (directory / "data.mdb").stat().st_size > 1 << 17
