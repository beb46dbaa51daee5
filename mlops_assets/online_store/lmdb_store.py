"""The online store in LMDB: one memory-mapped file on this machine, any number of processes reading while one writes.

A reader works on the version of the file that was complete when it began, so a push in progress, or one that was killed, is
never seen.
"""

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import lmdb

from mlops_assets.online_store.store import EncodedPush, OnlineStore, PushConflictError, ViewName
from mlops_assets.online_store.values import ViewState

INITIAL_MAP_BYTES = 1 << 30
"""Address space of the file, not its size on disk; doubled when it is full."""

_MAXIMUM_READERS = 1024


class _Environment:
    """One opened LMDB environment. LMDB wants each file opened at most once in a process, and again after a fork."""

    def __init__(self, directory: Path, map_bytes: int):
        directory.mkdir(parents=True, exist_ok=True)
        self.process = os.getpid()
        self.lmdb = lmdb.open(str(directory), map_size=map_bytes, max_readers=_MAXIMUM_READERS)
        # The map must not be resized while a transaction of this process is open: readers hold this for theirs.
        self.lock = threading.Lock()
        self._states: dict[ViewName, bytes | None] = {}
        self._states_of = -1

    def states(self, transaction: lmdb.Transaction, names: Sequence[ViewName]) -> list[bytes | None]:
        """The states of views, read again only after a push to any of them. Wants the lock."""
        if (moment := transaction.id()) != self._states_of:
            self._states_of, self._states = moment, {}
        known = self._states
        for name in names:
            if name not in known:
                known[name] = transaction.get(_state_key(name))  # type: ignore[assignment]  # bytes, unless it is opened for buffers
        return [known[name] for name in names]

    def adopt_map_size(self) -> None:
        """Take over the size that another process gave the map."""
        self.lmdb.set_mapsize(0)

    def double_map(self) -> None:
        """Make room."""
        with self.lock:
            self.lmdb.set_mapsize(2 * self.lmdb.info()["map_size"])


_environments: dict[Path, _Environment] = {}
_environments_lock = threading.Lock()


def _open(directory: Path, map_bytes: int) -> _Environment:
    with _environments_lock:
        environment = _environments.get(directory)
        if environment is not None and environment.process != os.getpid():
            # Inherited through a fork: closing it here leaves the parent's untouched.
            environment.lmdb.close()
            environment = None
        if environment is None:
            environment = _environments[directory] = _Environment(directory, map_bytes)
        return environment


def _renew_lock_after_fork() -> None:
    # Another thread of the parent may have held it.
    global _environments_lock
    _environments_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_after_fork)


def copy_files(directory: Path, target: Path) -> None:
    """Copy the store in `directory`, as it is after its newest push, into the folder `target`, which is created; nothing without a store."""
    if (directory / "data.mdb").exists():
        target.mkdir(parents=True)
        _open(directory.resolve(), INITIAL_MAP_BYTES).lmdb.copy(str(target), compact=True)


class LmdbStore(OnlineStore):
    """An online store in the folder `directory`, which is created when it is first used."""

    def __init__(self, directory: Path, map_bytes: int = INITIAL_MAP_BYTES):
        super().__init__()
        self._directory = directory.resolve()
        self._map_bytes = map_bytes
        self._opened: _Environment | None = None

    @property
    def _environment(self) -> _Environment:
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            opened = self._opened = _open(self._directory, self._map_bytes)
        return opened

    def _fetch(
        self, names: Sequence[ViewName], keys: Sequence[Sequence[bytes | None]]
    ) -> tuple[list[bytes | None], list[list[bytes | None]]]:
        environment = self._environment
        with environment.lock:
            try:
                transaction = environment.lmdb.begin()
            except lmdb.MapResizedError:
                environment.adopt_map_size()
                transaction = environment.lmdb.begin()
            with transaction:
                get = transaction.get
                values = []
                for name, view_keys in zip(names, keys, strict=True):
                    prefix = _prefix(name)
                    values.append([None if key is None else get(prefix + key) for key in view_keys])
                return environment.states(transaction, names), values

    def _apply(self, push: EncodedPush) -> ViewState:
        environment = self._environment
        environment.lmdb.reader_check()  # frees the slots of readers that were killed
        while True:
            try:
                return _write(environment, push)
            except lmdb.MapFullError:
                environment.double_map()
            except lmdb.MapResizedError:
                with environment.lock:
                    environment.adopt_map_size()


def _write(environment: _Environment, push: EncodedPush) -> ViewState:
    prefix, state_key = _prefix(push.name), _state_key(push.name)
    with environment.lmdb.begin(write=True) as transaction:
        stored = transaction.get(state_key)
        if push.base is not None and stored != push.base.to_bytes():
            raise PushConflictError(f"Feature view {push.name[0]} was pushed by another process meanwhile: push it again.")
        entities = push.state.entities
        if push.base is None:
            _remove_all(transaction, prefix)
            entities = 0
        before = transaction.stat()["entries"]
        for key, value in push.written.items():
            transaction.put(prefix + key, value)
        for key in push.removed:
            transaction.delete(prefix + key)
        entities += transaction.stat()["entries"] - before
        state = push.state.after(snapshot=push.state.snapshot, entities=entities, newest=None)
        transaction.put(state_key, state.to_bytes())
    return state


def _remove_all(transaction: lmdb.Transaction, prefix: bytes) -> None:
    with transaction.cursor() as cursor:
        has_entry = cursor.set_range(prefix)
        while has_entry and bytes(cursor.key()).startswith(prefix):
            has_entry = cursor.delete()


@lru_cache(maxsize=1024)
def _prefix(name: ViewName) -> bytes:
    return b"v\0%s\0%d\0" % (name[0].encode(), name[1])


@lru_cache(maxsize=1024)
def _state_key(name: ViewName) -> bytes:
    return b"s\0%s\0%d" % (name[0].encode(), name[1])
