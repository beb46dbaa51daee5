"""The protocol of an online store: push one view atomically, read several views for many entities at one moment of the store.

How keys and values look belongs to `values`, where they are kept to `lmdb_store` and `redis_store`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from mlops_assets.core.settings import Settings
from mlops_assets.online_store.values import (
    MICROSECONDS_PER_DAY,
    EntityValues,
    Flag,
    Key,
    OnlineStoreError,
    OnlineView,
    Value,
    ViewState,
    ViewValues,
    decode_values,
    encode_key,
    encode_values,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

ViewName = tuple[str, int]
"""Name and version of a view."""


class UnknownOnlineViewError(OnlineStoreError, LookupError):
    """The store does not hold the view, or the view lacks the feature."""


class PushConflictError(OnlineStoreError):
    """The view changed since its changes were computed: another process pushed it."""


class FeatureRequest(NamedTuple):
    """One view to read: its name and version, and which of its features (None = all)."""

    view: str
    version: int
    features: tuple[str, ...] | None


class OnlineRow(msgspec.Struct, frozen=True):
    """The answer for one entity: feature -> value, and view -> how and where its values were found."""

    values: dict[str, Value]
    views: dict[str, ViewValues]


@dataclass(frozen=True)
class EncodedPush:
    """A push as bytes. `base` is the state it changes, None to replace whatever the view holds; `state` lacks the entity count."""

    name: ViewName
    base: ViewState | None
    state: ViewState
    written: Mapping[bytes, bytes]
    removed: frozenset[bytes]


class OnlineStore(ABC):
    """Newest feature values by view, version and entity. A Dagster asset takes it as `dg.ResourceParam[OnlineStore]`.

    Connections are opened when first needed and once per process, so that an instance may cross a fork.
    """

    def __init__(self) -> None:
        self._readers: dict[tuple[FeatureRequest, ...], OnlineReader] = {}

    def read(
        self, requests: Sequence[FeatureRequest], entities: Sequence[Mapping[str, Any]], moment: datetime
    ) -> list[OnlineRow]:
        """Features of all requested views for each entity (key column -> value), all from one moment of the store.

        `moment`, with a time zone, is the moment at which staleness is measured. An entity that is unknown, stale, null or of the wrong
        type is flagged, never an error. Raises UnknownOnlineViewError for a view or feature that was never pushed.
        """
        return self.reader(tuple(requests)).read(entities, [moment] * len(entities))

    def reader(self, requests: tuple[FeatureRequest, ...]) -> "OnlineReader":
        """The reader of these views: keep it where the same views are read again and again."""
        if requests not in self._readers:
            self._readers[requests] = OnlineReader(self, requests)
        return self._readers[requests]

    def push(
        self,
        view: OnlineView,
        *,
        source: str,
        snapshot: int,
        base: ViewState | None,
        written: Sequence[EntityValues],
        removed: Sequence[Key],
    ) -> ViewState:
        """Store the values of `written` and forget the entities `removed`, with the lake's `snapshot`: all of it or nothing.

        `base` is the state the changes start from; None replaces everything the view holds. Readers see the view before or after,
        also when the process is killed half-way. Raises PushConflictError when the view is no longer at `base`.
        """
        kinds = [column.kind for column in view.entity]
        newest = max((entity.event_timestamp for entity in written), default=None) if view.timed else None
        start = base or ViewState(view=view, source=source, snapshot=snapshot, entities=0, newest=None)
        encoded = EncodedPush(
            name=(view.name, view.version),
            base=base,
            state=start.after(snapshot=snapshot, entities=start.entities, newest=newest),
            written={_require_key(view, kinds, entity.key): encode_values(entity) for entity in written},
            removed=frozenset(_require_key(view, kinds, key) for key in removed),
        )
        return self._apply(encoded)

    def event_timestamps(self, view: OnlineView, keys: Sequence[Key]) -> list[int | None]:
        """The stored event timestamp of each entity, None for one that is not stored."""
        kinds = [column.kind for column in view.entity]
        _, [records] = self._fetch([(view.name, view.version)], [[_require_key(view, kinds, key) for key in keys]])
        return [None if data is None else int(decode_values(data)[0]) for data in records]

    def state(self, name: str, version: int) -> ViewState | None:
        """The stored state of a view; None when it was never pushed."""
        [data], _ = self._fetch([(name, version)], [[]])
        return None if data is None else ViewState.from_bytes(data)

    @abstractmethod
    def _fetch(
        self, names: Sequence[ViewName], keys: Sequence[Sequence[bytes | None]]
    ) -> tuple[list[bytes | None], list[list[bytes | None]]]:
        """The state of each view and the values of its `keys` (None stays None), all as of one moment."""

    @abstractmethod
    def _apply(self, push: EncodedPush) -> ViewState:
        """Carry out a push in one transaction and return the new state with its entity count."""


class _Plan:
    """The plan to answer one request with one state of its view."""

    def __init__(self, request: FeatureRequest, state: ViewState):
        view = state.view
        positions = {column.name: position for position, column in enumerate(view.features, start=1)}
        chosen = request.features if request.features is not None else tuple(positions)
        if unknown := [feature for feature in chosen if feature not in positions]:
            raise UnknownOnlineViewError(
                f"Feature view {view.name} version {view.version} has no {', '.join(unknown)} online: it has {', '.join(positions)}."
            )
        self.view = view
        self.snapshot = state.snapshot
        self.missing = ViewValues(version=view.version, flag=Flag.MISSING)
        self.wrong_key = ViewValues(version=view.version, flag=Flag.WRONG_KEY)
        self.features = [(feature, positions[feature]) for feature in chosen]
        self.age_limit = view.freshness_days * MICROSECONDS_PER_DAY if view.timed and view.freshness_days else None


class _Layout:
    """The plans of several requests while the store holds `states`. Most views are about the same entity: its key is encoded once."""

    def __init__(self, requests: Sequence[FeatureRequest], states: list[bytes | None]):
        self.states = states
        self.plans: list[_Plan] = []
        for request, data in zip(requests, states, strict=True):
            if data is None:
                raise UnknownOnlineViewError(
                    f"Feature view {request.view} version {request.version} is not in the online store: "
                    "materialize online_features of a solution that uses it."
                )
            self.plans.append(_Plan(request, ViewState.from_bytes(data)))
        self._unknown: dict[str, Value] = {feature: None for plan in self.plans for feature, _ in plan.features}
        self.entities = list(dict.fromkeys(plan.view.entity for plan in self.plans))
        self._names = [[column.name for column in entity] for entity in self.entities]
        self._kinds = [[column.kind for column in entity] for entity in self.entities]
        self._of_plan = [self.entities.index(plan.view.entity) for plan in self.plans]

    def keys(self, rows: Sequence[Mapping[str, Any]]) -> list[list[bytes | None]]:
        """By view, the key of each row."""
        encoded = [
            [encode_key(kinds, [row.get(name) for name in names]) for row in rows]
            for names, kinds in zip(self._names, self._kinds, strict=True)
        ]
        return [encoded[position] for position in self._of_plan]

    def rows(
        self, keys: Sequence[Sequence[bytes | None]], values: Sequence[Sequence[bytes | None]], moments: Sequence[int]
    ) -> list[OnlineRow]:
        """The answer for each row, of its key and its stored values by view, at its moment in microseconds since 1970."""
        # A copy has room for all values: a dict that grows costs twice as much.
        rows = [OnlineRow(self._unknown.copy(), {}) for _ in moments]
        for plan, plan_keys, plan_values in zip(self.plans, keys, values, strict=True):
            view, limit = plan.view, plan.age_limit
            for row, key, data, moment in zip(rows, plan_keys, plan_values, moments, strict=True):
                if data is None:
                    row.views[view.name] = plan.wrong_key if key is None else plan.missing
                    continue
                record = decode_values(data)
                known_since = record[0]
                if limit is not None and moment - known_since > limit:
                    flag = Flag.STALE
                else:
                    row_values = row.values
                    for feature, position in plan.features:
                        row_values[feature] = record[position]
                    flag = Flag.NEWER if view.timed and known_since > moment else Flag.OK
                row.views[view.name] = ViewValues(
                    version=view.version,
                    flag=flag,
                    snapshot=plan.snapshot,
                    event_timestamp=_moment(known_since) if view.timed else None,
                )
        return rows


class OnlineReader:
    """Reads the same views again and again; what it knows of their columns is checked at every read and renewed by itself."""

    def __init__(self, store: OnlineStore, requests: tuple[FeatureRequest, ...]):
        self._store = store
        self._requests = requests
        self._names = [(request.view, request.version) for request in requests]
        self._known: _Layout | None = None

    def read(self, entities: Sequence[Mapping[str, Any]], moments: Sequence[datetime]) -> list[OnlineRow]:
        """See `OnlineStore.read`; staleness of each entity is measured at a moment of its own."""
        instants = [(moment - _EPOCH) // _MICROSECOND for moment in moments]
        layout = self._known or self._look_up()
        while True:
            keys = layout.keys(entities)
            states, values = self._store._fetch(self._names, keys)
            if states == layout.states:
                break
            # A push came between: its columns, and with them the keys, may be others.
            former = layout
            layout = self._known = _Layout(self._requests, states)
            if [plan.view for plan in layout.plans] == [plan.view for plan in former.plans]:
                break
        return layout.rows(keys, values, instants)

    def _look_up(self) -> _Layout:
        states, _ = self._store._fetch(self._names, [[] for _ in self._names])
        self._known = layout = _Layout(self._requests, states)
        return layout


def open_online_store(settings: Settings) -> OnlineStore:
    """The online store of this installation: Redis when `MLOPS_REDIS_URL` is set, else LMDB under the state folder."""
    if settings.redis_url:
        from mlops_assets.online_store.redis_store import RedisStore

        return RedisStore(settings.redis_url)
    from mlops_assets.online_store.lmdb_store import LmdbStore

    return LmdbStore(settings.online_store_directory)


@lru_cache(maxsize=4096)
def _moment(microseconds: int) -> datetime:
    """A moment in UTC. The values of many entities became known at the same ones."""
    return _EPOCH + microseconds * _MICROSECOND


def _require_key(view: OnlineView, kinds: Sequence[str], key: Key) -> bytes:
    data = encode_key(kinds, key)
    if data is None:
        raise OnlineStoreError(f"{key!r} cannot be the entity of {view.name}: expected {', '.join(kinds)}, none of them null.")
    return data
