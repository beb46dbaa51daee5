"""The stream channel and the prediction log on the running stack: real flights as events, with servers killed and NATS held."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import requests
from running_stack import Demo, Platform
from waiting import wait_for

from mlops_assets.access.credentials import event_stream_url, serving_token
from mlops_assets.clients.event_stream import REJECTS, REQUESTS, connect, scorer_consumer, subject
from mlops_assets.clients.publishing import Message, NotStoredError
from mlops_assets.local import control
from mlops_assets.operations.events import read_answers, requests_of_day
from mlops_assets.serving.active import CHAMPION_LINK, linked_bundle
from mlops_assets.serving.shipper import pending_bytes

SOLUTION = "flight_delay"
DAY = date(2013, 2, 20)
RATE = 200
TABLE, LOG = f"{SOLUTION}.all_predictions", f"{SOLUTION}.prediction_log"


def send_signal(platform: Platform, server: str, number: signal.Signals) -> None:
    [pid] = [int(str(entry["pid"])) for entry in control.status(platform.settings) if entry["name"] == server]
    os.kill(pid, number)


def publish(platform: Platform, name: str, events: list[bytes]) -> None:
    """Publish `events` steadily, each once, whatever happens to the server."""
    run = f"{name}-{time.time_ns()}"

    async def steadily() -> None:
        async with connect(event_stream_url(platform.settings), name="test", stopping=asyncio.Event()) as stream:
            for number, event in enumerate(events):
                message = Message(subject(REQUESTS, SOLUTION), f"{run}-{number}", event)
                while True:
                    try:
                        await stream.publish([message])
                        break
                    except NotStoredError:
                        await asyncio.sleep(0.2)
                await asyncio.sleep(1 / RATE)

    asyncio.run(steadily())


def waiting(platform: Platform, stream: str, durable: str) -> int:
    async def count() -> int:
        async with connect(event_stream_url(platform.settings), name="test", stopping=asyncio.Event()) as events:
            return await events.waiting(stream, SOLUTION, durable=durable)

    return asyncio.run(count())


def logged(platform: Platform, channel: str) -> int:
    return int(platform.value(f"SELECT count(*) FROM {TABLE} WHERE channel = '{channel}'"))


def champion(platform: Platform) -> Path:
    found = linked_bundle(platform.settings.serving_directory / SOLUTION, CHAMPION_LINK)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def flights(platform: Platform, demo: Demo) -> list[bytes]:
    """The flights of one day as requests."""
    return requests_of_day(platform.settings, SOLUTION, DAY, look_up=False)


@pytest.fixture(scope="module")
def streamed(platform: Platform, flights: list[bytes]) -> Iterator[list[bytes]]:
    """The flights once they were sent as events, while the scorer and NATS were killed, and their predictions are in the lake.

    In the end the lake has the rows of the batch alone again.
    """
    sending = threading.Thread(target=publish, args=(platform, "day", flights))
    sending.start()
    time.sleep(1.5)
    send_signal(platform, "stream", signal.SIGKILL)
    time.sleep(1.5)
    send_signal(platform, "nats", signal.SIGKILL)
    sending.join(120)
    assert not sending.is_alive()
    wait_for(lambda: waiting(platform, REQUESTS, scorer_consumer(SOLUTION)) == 0, every=0.5)
    # The sensor brings them into the lake.
    wait_for(lambda: logged(platform, "stream") >= len(flights), every=0.5)
    yield flights
    with platform.lake.writer_lock([LOG]), platform.lake.connect(read_only=False) as connection:
        connection.execute(f"DELETE FROM {LOG}")
    platform.materialize((f"{SOLUTION}/outcomes",), DAY.isoformat(), DAY.isoformat())


def test_a_day_of_flights_as_events_is_in_the_lake_exactly_once_and_equals_the_batch(
    platform: Platform, streamed: list[bytes]
) -> None:
    ids, keys = platform.rows(
        f"SELECT count(DISTINCT prediction_id), count(DISTINCT flight_id) FROM {TABLE} WHERE channel = 'stream'"
    )[0]
    assert logged(platform, "stream") == ids == keys == len(streamed)
    names = [feature["name"] for feature in json.loads((champion(platform) / "contract.json").read_text())["features"]]
    same = " AND ".join(f"s.{name} IS NOT DISTINCT FROM b.{name}" for name in names)
    compared, same_features, largest = platform.rows(
        f"SELECT count(*), count(*) FILTER (WHERE {same}), max(abs(s.score - b.score)) "
        f"FROM {TABLE} s JOIN {TABLE} b USING (flight_id, flight_date, predicted_at, model_version) "
        "WHERE s.channel = 'stream' AND b.channel = 'batch'"
    )[0]
    assert compared == same_features == len(streamed)
    # Trees are summed up in another order when many rows are scored at once.
    assert largest < 1e-6


def test_what_is_no_flight_is_rejected_with_the_reason(platform: Platform, flights: list[bytes]) -> None:
    row = json.loads(flights[0])
    publish(platform, "broken", [b"no JSON", json.dumps(row | {"distance": "far"}).encode()])
    wait_for(lambda: waiting(platform, REQUESTS, scorer_consumer(SOLUTION)) == 0, every=0.5)
    reasons = [reject["reason"] for reject in read_answers(platform.settings, SOLUTION, stream=REJECTS, minutes=2, follow=False)]
    assert any("not JSON" in reason for reason in reasons)
    assert any("distance" in reason for reason in reasons)
    shown = platform.mlops("stream", "tail", SOLUTION, "--rejects", "--json")
    assert shown.returncode == 0, shown.stderr
    assert [json.loads(line)["reason"] for line in shown.stdout.splitlines()][-len(reasons) :] == reasons


def test_while_nats_is_away_online_goes_on_and_nothing_is_lost(platform: Platform, streamed: list[bytes]) -> None:
    before, spool = logged(platform, "online"), platform.settings.spool_directory
    wait_for(lambda: pending_bytes(spool) == 0, every=0.5)
    send_signal(platform, "nats", signal.SIGSTOP)
    try:
        rows = json.dumps([json.loads(row) for row in streamed[:50]])
        # Not `mlops predict`, which starts what is missing first.
        address = f"{platform.settings.serving_url}/{SOLUTION}/predict"
        token = {"Authorization": f"Bearer {serving_token(platform.settings)}"}
        answer = requests.post(address, data=rows, headers=token, timeout=60)
        assert answer.status_code == 200, answer.text
        assert pending_bytes(spool) > 0
    finally:
        send_signal(platform, "nats", signal.SIGCONT)
    wait_for(lambda: pending_bytes(spool) == 0, every=0.5)
    wait_for(lambda: logged(platform, "online") >= before + 50, every=0.5)
    assert logged(platform, "online") == before + 50


def test_one_flight_has_the_same_value_in_all_channels_and_can_be_traced_in_each(
    platform: Platform, streamed: list[bytes]
) -> None:
    row = json.loads(streamed[25])
    found: dict[str, Any] = {
        channel: (score, identifier)
        for channel, score, identifier in platform.rows(
            f"SELECT channel, score, max(prediction_id) FROM {TABLE} WHERE flight_id = '{row['flight_id']}' GROUP BY ALL"
        )
    }
    assert set(found) == {"batch", "online", "stream"}
    scores = [score for score, _ in found.values()]
    assert max(scores) - min(scores) < 1e-6
    for channel, (score, identifier) in found.items():
        traced = platform.mlops("trace", identifier, "--json")
        assert traced.returncode == 0, traced.stderr
        assert json.loads(traced.stdout)["prediction"]["channel"] == channel
        explained = platform.mlops("explain", identifier, "--json")
        assert explained.returncode == 0, explained.stderr
        assert json.loads(explained.stdout)["prediction"] == pytest.approx(score, abs=1e-6)


def test_outcomes_have_the_labels_of_every_channel(platform: Platform, streamed: list[bytes]) -> None:
    platform.materialize((f"{SOLUTION}/outcomes",), DAY.isoformat(), DAY.isoformat())
    labels = platform.rows(
        f"SELECT count(*), count(DISTINCT is_late) FROM {SOLUTION}.outcomes WHERE channel = 'stream' AND matured"
    )[0]
    batch = platform.value(
        f"SELECT count(*) FROM {SOLUTION}.outcomes WHERE channel = 'batch' AND matured AND flight_date = DATE '{DAY}'"
    )
    assert labels == (batch, 2)
