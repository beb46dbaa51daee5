"""The record of one prediction, as the servers log it and the event stream carries it: JSON, the same in every channel.

Its columns in the lake belong to `predictions/prediction_log.py`.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal

import msgspec

from mlops_assets.online_store.values import ViewValues

Value = float | int | bool | str | None

Channel = Literal["online", "stream"]
Role = Literal["champion", "challenger"]


class Outputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of the model, as `Bundle.score` names it. Numbers are float32 values."""

    score: float | None = None
    predicted_label: int | str | None = None
    value: float | None = None
    probabilities: list[float] | None = None


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prediction with all that explains it. Moments have a time zone.

    `role` is that of the model; `answered` tells whether the caller got this prediction (False for a challenger in the shadow).
    `key` is the spine's key, `partition` the date of its partition. `features` are all features of the model, after overrides; those in
    `unseen` have a category that training did not hold. `classes` are those of the probabilities, in their order. `caller` has asked with a
    token of its own.
    """

    prediction_id: str
    solution: str
    channel: Channel
    role: Role
    answered: bool
    model_version: int
    key: str | int | None
    partition: date
    prediction_time: datetime
    entity: dict[str, Value]
    features: dict[str, Value]
    outputs: Outputs
    views: dict[str, ViewValues]
    served_at: datetime
    classes: Sequence[int | str] = ()
    unseen: Sequence[str] = ()
    caller: str | None = None


def build_prediction_id(*, solution: str, channel: Channel, request_id: str, role: Role) -> str:
    """The identifier of a prediction: the same for the same request, whichever version answers and however often it is tried."""
    shadow = "" if role == "champion" else f":{role}"
    return f"{solution}:{channel}:{request_id}{shadow}"


def encode_record(record: PredictionRecord) -> bytes:
    """The record as one line of JSON; NaN becomes null."""
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> PredictionRecord:
    """The record that `encode_record` wrote. Raises msgspec.ValidationError or msgspec.DecodeError naming what is wrong."""
    return _DECODER.decode(data)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(PredictionRecord)
