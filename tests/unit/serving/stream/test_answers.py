"""What is published for events: one message each, the same whenever it is made, whatever the events hold."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from bundles import NOON, fit_flights, push_planes
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg

from mlops_assets.clients.publishing import Message
from mlops_assets.clients.signatures import Signer
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.live import LiveChampions, Model
from mlops_assets.serving.prediction_record import PredictionRecord, decode_record
from mlops_assets.serving.stream.answers import answer

STORED = datetime(2020, 1, 10, 13, 30, tzinfo=UTC)
ROW = {"flight_id": "f1", "tailnum": "N1", "carrier": "AA", "distance": 1500, "predicted_at": NOON.isoformat()}
LIMIT = 1 << 20


@pytest.fixture(scope="module")
def champions(tmp_path_factory: pytest.TempPathFactory) -> LiveChampions:
    folder = tmp_path_factory.mktemp("stream")
    store = LmdbStore(folder / "store")
    push_planes(store)
    signer = Signer(folder / "signing_key")
    bundle = fit_flights("binary_classification").deploy(folder / "flights" / "1", signer)
    return LiveChampions(Model.load(bundle, store, signer, Serving(), None), ())


def event(sequence: int, data: bytes) -> Msg:
    stored = int(STORED.timestamp()) * 1_000_000_000
    return Msg(
        _client=None,  # type: ignore[arg-type]
        subject="requests.flights",
        reply=f"$JS.ACK.requests.scorer-flights.1.{sequence}.{sequence}.{stored}.0",
        data=data,
    )


def row(**changes: Any) -> bytes:
    return json.dumps(ROW | changes).encode()


def predictions(messages: list[Message]) -> list[PredictionRecord]:
    return [decode_record(message.payload) for message in messages if message.subject == "predictions.flights"]


def reasons(messages: list[Message]) -> list[str]:
    return [json.loads(message.payload)["reason"] for message in messages if message.subject == "rejects.flights"]


def test_a_prediction_holds_what_the_model_saw(champions: LiveChampions) -> None:
    [record] = predictions(answer(champions, [event(7, row())], LIMIT))
    assert (record.channel, record.role, record.answered, record.model_version, record.key) == (
        "stream",
        "champion",
        True,
        1,
        "f1",
    )
    assert record.entity == {"tailnum": "N1"}
    assert record.features["mean_delay"] == 0.5
    assert record.views["planes"].flag == "ok"
    assert record.outputs.score is not None
    assert record.prediction_time == NOON


def test_an_event_without_a_time_is_of_when_it_was_stored(champions: LiveChampions) -> None:
    without = {name: value for name, value in ROW.items() if name != "predicted_at"}
    [record] = predictions(answer(champions, [event(1, json.dumps(without).encode())], LIMIT))
    assert record.prediction_time == STORED


def test_the_id_depends_on_the_event_alone(champions: LiveChampions) -> None:
    events = [event(1, row()), event(2, row()), event(3, row(request_id="mine"))]
    first, second = answer(champions, events, LIMIT), answer(champions, [events[2], events[1], events[0]], LIMIT)
    assert [message.message_id for message in first] == [message.message_id for message in reversed(second)]
    assert len({message.message_id for message in first}) == 3
    assert first[2].message_id == "flights:stream:mine"


@given(
    garbage=st.lists(
        st.binary(max_size=60)
        | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()),
        max_size=4,
    ),
    changes=st.lists(
        st.dictionaries(st.sampled_from([*ROW, "features", "unknown"]), st.none() | st.text() | st.integers() | st.floats()),
        max_size=4,
    ),
)
@settings(max_examples=examples(50))
def test_every_event_has_one_message_and_valid_ones_their_prediction(
    champions: LiveChampions, garbage: list[bytes], changes: list[dict]
) -> None:
    events = [event(n, data) for n, data in enumerate([*garbage, *(row(**change) for change in changes), row()], start=1)]
    messages = answer(champions, events, LIMIT)
    assert len(messages) == len(events)
    assert len({message.message_id for message in messages}) == len(events)
    assert predictions(messages)[-1].key == "f1"
    assert all(reasons(messages))


def test_a_row_that_the_model_cannot_answer_costs_the_others_nothing(
    champions: LiveChampions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = champions.default.scorer._matrices

    def refuse(features: list[dict[str, Any]]) -> Any:
        if any(13 in values.values() for values in features):
            raise ValueError("13 is refused")
        return real(features)

    monkeypatch.setattr(champions.default.scorer, "_matrices", refuse)
    messages = answer(champions, [event(1, row(flight_id="a")), event(2, row(distance=13)), event(3, row(flight_id="b"))], LIMIT)
    assert [record.key for record in predictions(messages)] == ["a", "b"]
    assert reasons(messages) == ["13 is refused"]


def test_a_prediction_that_no_message_can_hold_is_rejected(champions: LiveChampions) -> None:
    assert reasons(answer(champions, [event(1, row())], 100)) == ["the prediction has more than 100 bytes"]
