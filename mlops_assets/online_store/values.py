"""The encoding of an online view, its entity keys and its values as bytes (msgpack), the same in every store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from numbers import Integral
from typing import Any

import msgspec

Value = float | int | bool | str | None
Key = tuple[Any, ...]

MICROSECONDS_PER_DAY = 86_400_000_000

_LONGEST_KEY = 256
"""Longer keys are replaced by their hash: LMDB allows 511 bytes, the name of the view included."""

_HASHED = b"\xc1"
"""A byte that msgpack never writes, so that a hashed key cannot equal a plain one."""

_KINDS = {
    "VARCHAR": "string",
    "BOOLEAN": "boolean",
    "DOUBLE": "float",
    "FLOAT": "float",
    **dict.fromkeys(["TINYINT", "SMALLINT", "INTEGER", "BIGINT"], "integer"),
    **dict.fromkeys(["UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"], "integer"),
}
_KEY_KINDS: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool}


class OnlineStoreError(Exception):
    """The online store cannot do what was asked; the message says what to change."""


class Flag(StrEnum):
    """The reason for the values of the features of one view; `MISSING`, `STALE` and `WRONG_KEY` come with nulls.

    `NEWER` values became known after the moment that was asked for: the store has no older ones. Right for a request that waited on
    its way, and a leak in a replay of the past. `REQUEST` values were not looked up, since the request gave them all.
    """

    OK = "ok"
    NEWER = "newer"
    MISSING = "missing"
    STALE = "stale"
    WRONG_KEY = "wrong_key"
    REQUEST = "request"


class ViewValues(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of the values of one feature view: its version, the lake's snapshot that they reflect, when they were known.

    `snapshot` and `event_timestamp` are None when there were no values or the request gave them, `event_timestamp` also in a view
    whose values hold at all times.
    """

    version: int
    flag: Flag
    snapshot: int | None = None
    event_timestamp: datetime | None = None


@dataclass(frozen=True)
class Column:
    """A column of an online view. `kind` is string, integer, float or boolean."""

    name: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class OnlineView:
    """The state of one version of a feature view in a store.

    Values older than `freshness_days` do not count (None = any age). `timed` is false for a view whose values hold at all times.
    """

    name: str
    version: int
    entity: tuple[Column, ...]
    features: tuple[Column, ...]
    timed: bool
    freshness_days: int | None


@dataclass(frozen=True, kw_only=True)
class ViewState:
    """An online view as it is stored: the lake table and snapshot that the values reflect, and how many entities have some.

    `newest` is the newest event timestamp that was ever pushed, in microseconds since 1970 (None for a view without times).
    """

    view: OnlineView
    source: str
    snapshot: int
    entities: int
    newest: int | None

    def to_bytes(self) -> bytes:
        """The state as msgpack."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ViewState":
        """The state that `to_bytes` wrote."""
        return msgspec.msgpack.decode(data, type=cls)

    def after(self, *, snapshot: int, entities: int, newest: int | None) -> "ViewState":
        """The state after a push."""
        known = [moment for moment in (self.newest, newest) if moment is not None]
        return replace(self, snapshot=snapshot, entities=entities, newest=max(known, default=None))


@dataclass(frozen=True)
class EntityValues:
    """The newest values of one entity. `event_timestamp` is in microseconds since 1970, 0 in a view without times."""

    key: Key
    event_timestamp: int
    values: tuple[Value, ...]


def build_columns(names: Sequence[str], types: Mapping[str, str], *, view: str, as_key: bool) -> tuple[Column, ...]:
    """Columns with the kinds of their DuckDB `types`. Raises OnlineStoreError for a type that has no exact online value."""
    columns = []
    for name in names:
        kind = _KINDS.get(types[name])
        if kind is None or (as_key and kind not in _KEY_KINDS):
            allowed = ", ".join(data_type for data_type, known in _KINDS.items() if not as_key or known in _KEY_KINDS)
            raise OnlineStoreError(
                f"Column {name} of feature view {view} is {types[name]}, which the online store cannot hold exactly: "
                f"cast it to one of {allowed}, or set meta.feature_view.online to false."
            )
        columns.append(Column(name, kind))
    return tuple(columns)


def encode_key(kinds: Sequence[str], key: Sequence[Any]) -> bytes | None:
    """The bytes of an entity key; None when a part is null, of another kind, or cannot be a key at all."""
    parts: list[Any] = []
    for kind, part in zip(kinds, key, strict=True):
        expected = _KEY_KINDS[kind]
        if type(part) is expected:
            parts.append(part)
        elif expected is int and isinstance(part, Integral) and not isinstance(part, bool):
            parts.append(int(part))  # a numpy integer
        elif expected is str and isinstance(part, str):
            parts.append(str(part))
        else:
            return None
    try:
        data = _encode(parts)
    except (OverflowError, UnicodeEncodeError):
        return None
    return data if len(data) <= _LONGEST_KEY else _HASHED + sha256(data).digest()


def encode_values(entity: EntityValues) -> bytes:
    """Event timestamp and values as msgpack; every value keeps its type, NaN and null included."""
    return _encode([entity.event_timestamp, *entity.values])


_encode = msgspec.msgpack.Encoder().encode

decode_values: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(list).decode
"""Event timestamp, then the values."""
