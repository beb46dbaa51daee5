"""Requests for predictions: rows as JSON, decoded and validated against the contract. The same for HTTP and for events.

A row is a row of the spine without its label: the key, the entity keys and the request columns, by their names. It may give the
prediction time, the partition, `request_id` and values of `features` that override what would be looked up or derived. What a value may
be belongs to `serving/columns.py`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mlops_assets.schema.column_names import FEATURES, REQUEST_ID
from mlops_assets.schema.configuration_errors import nearest_name
from mlops_assets.serving.columns import Day, Identifier, Moment, Text, feature_type, json_type
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.prediction_record import Value

MAXIMUM_ROWS = 1000
"""The most rows of one request."""

_ERROR = re.compile(r"(?P<problem>.*?)(?: - at `\$(?:\[(?P<row>\d+)\])?\.?(?P<field>.*)`)?", re.DOTALL)
_FIELD_ERROR = re.compile(r"Object (?P<kind>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)


class RequestError(ValueError):
    """A request that cannot be scored: which field (None = the whole body) of which row is wrong, what is wrong, what is allowed.

    `row` counts from 0; None when the request is a single row.
    """

    def __init__(self, *, row: int | None, field: str | None, problem: str, allowed: str):
        place = ".".join(part for part in (None if row is None else f"row {row}", field) if part) or "the body"
        super().__init__(f"{place}: {problem}; allowed: {allowed}")
        self.row, self.field, self.problem, self.allowed = row, field, problem, allowed

    def at(self, row: int | None) -> "RequestError":
        """The same error, of another row."""
        return RequestError(row=row, field=self.field, problem=self.problem, allowed=self.allowed)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One validated row. `columns` are entity keys and request columns, `features` the values that override; moments are in UTC."""

    request_id: str | None
    key: str | int
    partition: date
    prediction_time: datetime
    columns: Mapping[str, Value]
    features: Mapping[str, Value]


class RequestDecoder:
    """Decodes the rows that one contract allows. Safe to call from several threads.

    `row_type` and `request_type` (a row, or an array of rows) are the msgspec types, of which the OpenAPI is made too.
    """

    def __init__(self, contract: Contract):
        """Build the types. Raises UnknownTypeError when a column of the contract has a type without a form in JSON."""
        self._prediction_time_column = contract.prediction_time_column
        self._zone = ZoneInfo(contract.time_zone)
        requested = {column.name for column in contract.request_columns}
        features = {
            feature.name: feature_type(feature.type) | None for feature in contract.features if feature.name not in requested
        }
        columns = {column.name: json_type(column.type) | None for column in (*contract.entity_keys, *contract.request_columns)}
        key_type = json_type(contract.key.type)
        fields = {
            **columns,
            contract.prediction_time_column: Moment | None,
            contract.partition_column: Day | None,
            REQUEST_ID: Identifier | None,
            contract.key.name: Identifier if key_type is Text else key_type,
        }
        overrides = _struct(f"{contract.name}_features", features, required=None)
        row_type = _struct(contract.name, {**fields, FEATURES: overrides}, required=contract.key.name)
        self.row_type = row_type
        self.request_type: Any = row_type | Annotated[list[row_type], Meta(min_length=1, max_length=MAXIMUM_ROWS)]  # type: ignore[valid-type]
        self._row_decoder = msgspec.json.Decoder(self.row_type)
        self._request_decoder = msgspec.json.Decoder(self.request_type)
        self._columns, self._fields, self._features = tuple(columns), tuple(fields), tuple(features)
        own_fields = (contract.prediction_time_column, contract.partition_column, REQUEST_ID, contract.key.name)
        self._take = itemgetter(*map(self._fields.index, own_fields))
        self._allowed = {name: _describe(kind) for name, kind in fields.items()} | {
            f"{FEATURES}.{name}": _describe(kind) for name, kind in features.items()
        }
        # What must be in `features` when a column is left out: a request column may not be, an entity key when nothing is looked up.
        looked_up = {
            key.name: {
                name for view in contract.feature_views if view.online and key.name in view.entity for name in view.features
            }
            for key in contract.entity_keys
        }
        self._instead_of = {name: None if name in requested else looked_up[name] for name in columns}
        self._offline = {name: view.name for view in contract.feature_views if not view.online for name in view.features}

    def decode(self, body: bytes, received_at: datetime) -> Row | list[Row]:
        """The row, or the rows of an array. `received_at`, in UTC, is the prediction time of those that give none. Raises RequestError."""
        decoded = self._decode(self._request_decoder, body)
        if not isinstance(decoded, list):
            return self._row(decoded, None, received_at)
        rows = [self._row(decoded_row, number, received_at) for number, decoded_row in enumerate(decoded)]
        request_ids: set[str] = set()
        for number, row in enumerate(rows):
            if row.request_id in request_ids:
                raise self._error(number, REQUEST_ID, "is that of another row too")
            if row.request_id:
                request_ids.add(row.request_id)
        return rows

    def decode_row(self, body: bytes, received_at: datetime) -> Row:
        """The one row of `body`: an event. Raises RequestError."""
        return self._row(self._decode(self._row_decoder, body), None, received_at)

    def _decode(self, decoder: msgspec.json.Decoder, body: bytes) -> Any:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(row=None, field=None, problem=f"not JSON in UTF-8: {error}", allowed=_BODY) from error

    def _row(self, decoded: msgspec.Struct, number: int | None, received_at: datetime) -> Row:
        *field_values, overrides = msgspec.structs.astuple(decoded)
        moment, partition, request_id, key = self._take(field_values)
        features = {} if overrides is UNSET else _given(self._features, msgspec.structs.astuple(overrides))
        # The columns are the first fields.
        columns = dict(zip(self._columns, field_values, strict=False))
        if UNSET in field_values[: len(columns)]:
            for name, value in columns.items():
                if value is UNSET:
                    self._check_left_out(name, number, features)
                    columns[name] = None
        for name, view in self._offline.items():
            if name not in features:
                problem = f"is missing, and the feature view {view} is not in the online store"
                raise self._error(number, f"{FEATURES}.{name}", problem)
        try:
            prediction_time = moment.astimezone(UTC) if moment else received_at
            day = partition or prediction_time.astimezone(self._zone).date()
        except OverflowError as error:
            raise self._error(number, self._prediction_time_column, "is before the year 1 or after 9999 in UTC") from error
        return Row(
            request_id=request_id or None,
            key=key if isinstance(key, str | int) else str(key),
            partition=day,
            prediction_time=prediction_time,
            columns=columns,
            features=features,
        )

    def _check_left_out(self, name: str, number: int | None, features: Mapping[str, Value]) -> None:
        """Raise RequestError unless nothing would be looked up with the column `name`."""
        instead = self._instead_of[name]
        if instead is None:
            raise self._error(number, name, "is missing")
        if missing := sorted(instead - features.keys()):
            raise self._error(number, name, f"is missing, with which {', '.join(missing)} would be looked up")

    def _error(self, row: int | None, field: str, problem: str) -> RequestError:
        return RequestError(row=row, field=field, problem=problem, allowed=self._allowed.get(field, _BODY))

    def _explain(self, message: str) -> RequestError:
        """The error that msgspec's `message` tells."""
        match = _ERROR.fullmatch(message)
        assert match is not None  # the expression matches every text
        problem, place = match["problem"], match["field"] or ""
        row = None if match["row"] is None else int(match["row"])
        if (wrong := _FIELD_ERROR.fullmatch(problem)) is None:
            return RequestError(
                row=row, field=place or None, problem=problem.replace("`", ""), allowed=self._allowed.get(place, _BODY)
            )
        field = f"{place}.{wrong['name']}" if place else wrong["name"]
        if wrong["kind"] == "missing required":
            return self._error(row, field, "is missing")
        known = [*self._features] if place == FEATURES else [*self._fields, FEATURES]
        close = nearest_name(wrong["name"], known)
        problem = f"is no field; did you mean {close}?" if close else "is no field"
        return RequestError(row=row, field=field, problem=problem, allowed=", ".join(sorted(known)) or "none")


_BODY = f"a JSON object, or an array of 1 to {MAXIMUM_ROWS} of them"


def _struct(name: str, fields: Mapping[str, Any], required: str | None) -> type[msgspec.Struct]:
    """A struct with these fields; all but `required` may be left out, nothing else may be given."""
    # A column may have a name that no attribute can have.
    names = {f"field_{position}": field for position, field in enumerate(fields)}
    attributes = [
        (attribute, fields[field]) if field == required else (attribute, fields[field] | UnsetType, UNSET)
        for attribute, field in names.items()
    ]
    return msgspec.defstruct(
        name, attributes, rename=names, forbid_unknown_fields=True, frozen=True, kw_only=True, module=__name__
    )


def _given(names: Sequence[str], values: Sequence[Any]) -> dict[str, Value]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not UNSET}


def _describe(kind: Any) -> str:
    """Describe in words the values that a field of this type may hold."""
    parts = get_args(kind) if type(None) in get_args(kind) else (kind,)
    [constrained] = [part for part in parts if part is not type(None)]
    meaning = str(get_args(constrained)[1].description)
    return f"{meaning} or null" if len(parts) > 1 else meaning
