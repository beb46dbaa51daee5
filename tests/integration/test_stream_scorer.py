"""The stream scorer as processes, on a real NATS server: each event has exactly one answer, whatever is killed meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import NOON, Fitted, fit_flights, push_planes
from nats_server import NatsServer
from waiting import wait_for

from mlops_assets.clients.event_flow import open_flow
from mlops_assets.clients.event_stream import PREDICTIONS, REJECTS, REQUESTS, EventStream, scorer_consumer, subject
from mlops_assets.clients.publishing import Message
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.serving.active import CHAMPION_LINK, activate
from mlops_assets.serving.prediction_record import PredictionRecord, decode_record

SOLUTION = "flights"


@pytest.fixture(scope="module")
def versions() -> dict[int, Fitted]:
    return {version: fit_flights("binary_classification", version=version, seed=version) for version in (1, 2)}


@pytest.fixture
def home(tmp_path: Path, versions: dict[int, Fitted]) -> Path:
    settings = Settings(home=tmp_path / "home")
    for version, fitted in versions.items():
        fitted.deploy(settings.serving_directory / SOLUTION / str(version), Signer(settings.signing_key_file))
    push_planes(LmdbStore(settings.online_store_directory))
    return settings.home


Start = Callable[[], subprocess.Popen]


@pytest.fixture
def start(nats: NatsServer, home: Path, tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen] = []

    def start_one() -> subprocess.Popen:
        environment = os.environ | {"MLOPS_HOME": str(home), "MLOPS_NATS_URL": nats.url}
        with (tmp_path / "scorer.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "mlops_assets.serving.stream"], env=environment, stderr=log)
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.wait()


def champion(home: Path, version: int) -> None:
    activate(Settings(home=home).serving_directory / SOLUTION / str(version), CHAMPION_LINK)


def row(number: int) -> dict[str, object]:
    return {"flight_id": f"f{number}", "tailnum": "N1", "carrier": "AA", "distance": number, "predicted_at": NOON.isoformat()}


def ask(nats: NatsServer, numbers: range, **changes: object) -> None:
    messages = [
        Message(subject(REQUESTS, SOLUTION), f"event-{number}", json.dumps(row(number) | changes).encode()) for number in numbers
    ]
    nats.run(lambda stream: stream.publish(messages))


def stored(nats: NatsServer, name: str) -> int:
    async def count(stream: EventStream) -> int:
        return int((await stream.jetstream.stream_info(name)).state.messages)

    return nats.run(count)


def waiting(nats: NatsServer, seconds: float) -> int:
    """How many requests the scorers' consumer gives out within `seconds`; they are given back."""

    count = stored(nats, REQUESTS)

    async def take(stream: EventStream) -> int:
        durable = scorer_consumer(SOLUTION)
        async with open_flow(stream, REQUESTS, SOLUTION, durable=durable, acknowledge_seconds=30, ahead=count) as flow:
            events = await flow.take(minimum=count, maximum=count, wait_seconds=seconds)
            for event in events:
                await event.nak()
        return len(events)

    return nats.run(take)


def answers(nats: NatsServer) -> list[PredictionRecord]:
    return [decode_record(message.data) for message in nats.messages(PREDICTIONS, SOLUTION)]


@pytest.mark.long
def test_each_event_is_answered_once_through_kills_of_scorers_and_server(nats: NatsServer, home: Path, start: Start) -> None:
    champion(home, 1)
    ask(nats, range(3000))
    first, second = start(), start()
    wait_for(lambda: stored(nats, PREDICTIONS) > 500)
    first.kill()
    wait_for(lambda: stored(nats, PREDICTIONS) > 1200)
    nats.kill()
    third = start()
    nats.start()
    ask(nats, range(3000, 4000))
    wait_for(lambda: stored(nats, PREDICTIONS) > 2500)
    second.kill()
    # What the killed ones were given comes again 30 s later.
    wait_for(lambda: stored(nats, REQUESTS) == 0)
    third.send_signal(signal.SIGTERM)
    assert third.wait(60) == 0
    keys = [record.key for record in answers(nats)]
    assert len(keys) == len(set(keys)) == 4000
    assert stored(nats, REJECTS) == 0


def test_what_is_no_request_is_rejected_with_the_reason_and_the_rest_is_answered(
    nats: NatsServer, home: Path, start: Start
) -> None:
    champion(home, 1)
    ask(nats, range(10))
    ask(nats, range(10, 12), distance="far")
    broken = [
        Message(subject(REQUESTS, SOLUTION), f"b{n}", data) for n, data in enumerate([b"", b"\xff", b"[]", b'{"flight_id": "x"}'])
    ]
    nats.run(lambda stream: stream.publish(broken))
    ask(nats, range(12, 20))
    start()
    wait_for(lambda: stored(nats, REQUESTS) == 0)
    rejects = [json.loads(message.data) for message in nats.messages(REJECTS, SOLUTION)]
    assert len(rejects) == 6
    assert [reject["sequence"] for reject in rejects] == [11, 12, 13, 14, 15, 16]
    assert "distance" in rejects[0]["reason"]
    assert '"distance": "far"' in rejects[0]["message"]
    assert len(answers(nats)) == 18


def test_a_new_champion_takes_over_without_a_lost_or_doubled_answer(nats: NatsServer, home: Path, start: Start) -> None:
    start()
    ask(nats, range(50))
    time.sleep(1)
    assert stored(nats, PREDICTIONS) == 0
    champion(home, 1)
    wait_for(lambda: stored(nats, PREDICTIONS) == 50)
    champion(home, 2)
    number = 50
    while not any(record.model_version == 2 for record in answers(nats)[-5:]):
        ask(nats, range(number, number + 5))
        number += 5
    wait_for(lambda: stored(nats, REQUESTS) == 0)
    found = answers(nats)
    assert [record.key for record in found] == [f"f{n}" for n in range(number)]
    versions = [record.model_version for record in found]
    assert versions == sorted(versions)
    assert {1, 2} == set(versions)


@pytest.mark.long
def test_asked_to_stop_a_scorer_leaves_no_event_to_wait_for(nats: NatsServer, home: Path, start: Start) -> None:
    champion(home, 1)
    scorer = start()
    wait_for(lambda: bool(ask(nats, range(1)) or stored(nats, PREDICTIONS)))
    ask(nats, range(1, 5000))
    wait_for(lambda: stored(nats, PREDICTIONS) > 100)
    scorer.send_signal(signal.SIGTERM)
    assert scorer.wait(60) == 0
    # What the scorer had taken and not answered it gave back: nobody has to wait until it comes again by itself, after 30 s.
    # The server goes on taking in the acknowledgements of a scorer that has ended.
    wait_for(lambda: stored(nats, REQUESTS) + stored(nats, PREDICTIONS) == 5000)
    assert 0 < stored(nats, REQUESTS) == waiting(nats, seconds=20)
    start()
    wait_for(lambda: stored(nats, REQUESTS) == 0)
    assert len(answers(nats)) == 5000
