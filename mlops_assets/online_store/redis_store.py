"""The online store in Redis, for several hosts: for each view one hash of values and one string with its state.

Every read and every push is one MULTI/EXEC. A view that is replaced is built beside the old one and takes its place at the end. In a cluster
a view is on one node, whole: a read of several views is one MULTI/EXEC for each.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from redis.exceptions import ClusterDownError, ClusterError, RedisClusterException

from mlops_assets.online_store.store import EncodedPush, OnlineStore, PushConflictError, ViewName
from mlops_assets.online_store.values import OnlineStoreError, ViewState

Item = TypeVar("Item")

_CLUSTER = "+cluster"
_CLUSTER_ERRORS = (ClusterDownError, ClusterError, RedisClusterException)
_NAMESPACE = "mlops:online"
_OWNER = "mlops:environment"
_FIELDS_PER_COMMAND = 5_000
_ABANDONED_SECONDS = 3_600
"""A view under construction whose process was killed disappears after this time."""


class RedisStore(OnlineStore):
    """An online store on the Redis server at `url` (`redis://`, `rediss://` or `unix://`).

    `redis+cluster://` or `rediss+cluster://` names any node of a cluster.
    """

    def __init__(self, url: str):
        super().__init__()
        parts = urlsplit(url)
        self._is_cluster = parts.scheme.endswith(_CLUSTER)
        self._url = url.replace(f"{_CLUSTER}://", "://", 1)
        self._place = f"{parts.hostname}:{parts.port}" if parts.hostname else parts.path
        self._opened: tuple[int, Any] | None = None

    def claim(self, environment: str) -> str:
        """Write down that the store is of `environment`, where it is of none. Returns the one that it is of. Raises OnlineStoreError."""
        with self._explained():
            self._client.set(_OWNER, environment, nx=True)
            return bytes(self._client.get(_OWNER)).decode()

    @property
    def _client(self) -> Any:
        """The client of this process: that of a cluster connects when it is made, and must not cross a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            kind = redis.RedisCluster if self._is_cluster else redis.Redis
            self._opened = (os.getpid(), kind.from_url(self._url))
        return self._opened[1]

    def _fetch(
        self, names: Sequence[ViewName], keys: Sequence[Sequence[bytes | None]]
    ) -> tuple[list[bytes | None], list[list[bytes | None]]]:
        together = (
            [[request] for request in zip(names, keys, strict=True)]
            if self._is_cluster
            else [list(zip(names, keys, strict=True))]
        )
        with self._explained():
            answers = iter([answer for requests in together for answer in self._ask(requests)])
        states, values = [], []
        for view_keys in keys:
            states.append(next(answers))
            view_values = iter(next(answers)) if any(key is not None for key in view_keys) else iter(())
            values.append([None if key is None else next(view_values) for key in view_keys])
        return states, values

    def _ask(self, requests: Sequence[tuple[ViewName, Sequence[bytes | None]]]) -> list[Any]:
        """The state of each view, followed by the values of its keys where it has any, at one moment."""
        with self._client.pipeline(transaction=True) as pipeline:
            for name, view_keys in requests:
                pipeline.get(self._state_key(name))
                if fields := [key for key in view_keys if key is not None]:
                    pipeline.hmget(self._values_key(name), fields)
            answers: list[Any] = pipeline.execute()
            return answers

    def _apply(self, push: EncodedPush) -> ViewState:
        with self._explained(), self._client.pipeline(transaction=True) as pipeline:
            return self._replace(pipeline, push) if push.base is None else self._change(pipeline, push, push.base)

    def _replace(self, pipeline: Any, push: EncodedPush) -> ViewState:
        values_key, next_key = self._values_key(push.name), self._key(push.name, f"next:{uuid4().hex}")
        for fields in _batches(list(push.written.items())):
            self._client.hset(next_key, mapping=dict(fields))
            self._client.expire(next_key, _ABANDONED_SECONDS)
        state = push.state.after(snapshot=push.state.snapshot, entities=len(push.written), newest=None)
        pipeline.multi()
        if push.written:
            # By its name: redis-py refuses `rename` in pipelines of a cluster, whose keys might be on two nodes.
            pipeline.execute_command("RENAME", next_key, values_key)
            pipeline.persist(values_key)
        else:
            pipeline.delete(values_key)
        pipeline.set(self._state_key(push.name), state.to_bytes())
        pipeline.execute()
        return state

    def _change(self, pipeline: Any, push: EncodedPush, base: ViewState) -> ViewState:
        values_key, state_key = self._values_key(push.name), self._state_key(push.name)
        pipeline.watch(state_key)
        if pipeline.get(state_key) != base.to_bytes():
            raise _conflict(push)
        removed = push.removed - push.written.keys()
        entities = base.entities + len(push.written)
        entities -= self._count(values_key, list(push.written)) + self._count(values_key, list(removed))
        state = push.state.after(snapshot=push.state.snapshot, entities=entities, newest=None)
        pipeline.multi()
        for fields in _batches(list(push.written.items())):
            pipeline.hset(values_key, mapping=dict(fields))
        for keys in _batches(list(removed)):
            pipeline.hdel(values_key, *keys)
        pipeline.set(state_key, state.to_bytes())
        try:
            pipeline.execute()
        except redis.WatchError as error:
            raise _conflict(push) from error
        return state

    def _count(self, values_key: str, keys: list[bytes]) -> int:
        """Count the `keys` that are stored."""
        return sum(value is not None for part in _batches(keys) for value in self._client.hmget(values_key, part))

    def _values_key(self, name: ViewName) -> str:
        return self._key(name, "values")

    def _state_key(self, name: ViewName) -> str:
        return self._key(name, "state")

    def _key(self, name: ViewName, part: str) -> str:
        # In a cluster what is in braces decides the node.
        return f"{_NAMESPACE}:{{{name[0]}:{name[1]}}}:{part}" if self._is_cluster else f"{_NAMESPACE}:{part}:{name[0]}:{name[1]}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError, *_CLUSTER_ERRORS) as error:
            raise OnlineStoreError(
                f"The online store's Redis at {self._place} does not answer: {error} Start it, or correct MLOPS_REDIS_URL "
                "(unset, the store is LMDB on this machine)."
            ) from error


def _conflict(push: EncodedPush) -> PushConflictError:
    return PushConflictError(f"Feature view {push.name[0]} was pushed by another process meanwhile: push it again.")


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), _FIELDS_PER_COMMAND):
        yield items[start : start + _FIELDS_PER_COMMAND]
