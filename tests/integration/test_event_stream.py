"""The event stream and the way of the spooled predictions to it, on a real NATS server."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nats import connect as connect_as
from nats.aio.msg import Msg
from nats_server import NatsServer
from prediction_records import prediction_record
from waiting import wait_for

from mlops_assets.access.credentials import event_stream_caller, event_stream_platform
from mlops_assets.clients.event_flow import open_flow
from mlops_assets.clients.event_stream import PREDICTIONS, REJECTS, REQUESTS, EventStream, connect, subject
from mlops_assets.clients.publishing import EventStreamError, Message, NotStoredError
from mlops_assets.core.errors import StackError
from mlops_assets.local import control
from mlops_assets.local.environment import scripts_directory
from mlops_assets.serving.prediction_record import decode_record
from mlops_assets.serving.shipper import pending_bytes, ship
from mlops_assets.serving.spool import SpoolWriter

APPENDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from prediction_records import prediction_record
from mlops_assets.serving.spool import SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]) / "late", durable=True)
for number in range(int(sys.argv[3]), 1_000_000):
    writer.append(prediction_record(number))
    print(number, flush=True)
    time.sleep(0.0005)
"""


def start_shipper(nats: NatsServer, home: Path) -> subprocess.Popen:
    environment = os.environ | {"MLOPS_HOME": str(home), "MLOPS_NATS_URL": nats.url}
    return subprocess.Popen(
        [sys.executable, "-m", "mlops_assets.serving.shipper"], env=environment, stderr=subprocess.PIPE, text=True
    )


def appended_until_killed(spool: Path, first: int, records: int) -> int:
    """Start a writer, kill it with SIGKILL behind at least so many records: the number of the first that it did not say was appended."""
    command = [sys.executable, "-c", APPENDER, str(spool), str(Path(__file__).parents[1]), str(first)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(records)]
    writer.kill()
    said += map(int, writer.stdout.read().split())
    return said[-1] + 1


def test_the_streams_are_of_one_environment(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def create(stream: EventStream) -> bool:
        return await stream.create_streams()

    assert nats.run(create)
    monkeypatch.setenv("MLOPS_ENV", "staging")
    with pytest.raises(
        StackError, match=r"^The stream requests of MLOPS_NATS_URL is of the environment local, and this process is of staging"
    ):
        nats.run(create)
    monkeypatch.delenv("MLOPS_ENV")
    assert nats.run(create)


@pytest.mark.long
def test_nothing_is_lost_or_doubled_when_writers_shippers_and_the_server_are_killed(nats: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    spool = home / "spool"
    shipper = start_shipper(nats, home)
    first = appended_until_killed(spool, 0, records=500)
    nats.kill()
    # Each killed writer may have appended one more record than it could say.
    second = appended_until_killed(spool, 10_000, records=500)
    assert pending_bytes(spool) > 0
    nats.start()
    third = appended_until_killed(spool, 20_000, records=250)
    shipper.kill()
    shipper.wait()
    with (spool / "late" / "1-1.segment").open("wb") as torn:
        torn.write(b"0badc0de {}\n12345678 {")
    last = start_shipper(nats, home)
    wait_for(lambda: not list((spool / "late").glob("*.segment")))
    last.send_signal(signal.SIGTERM)
    assert last.wait(60) == 0
    assert last.stderr is not None
    log = last.stderr.read()

    stored = [int(decode_record(message.data).key.rpartition("-")[2]) for message in nats.messages(PREDICTIONS, "late")]  # type: ignore[union-attr]
    expected = [*range(first), *range(10_000, second), *range(20_000, third)]
    assert len(stored) == len(set(stored))
    assert set(expected) <= set(stored)
    assert set(stored) - set(expected) <= {first, second, third}
    assert len(expected) > 1000
    assert "is damaged" in log
    assert "not completely written" in log
    assert (spool / "late" / "1-1.damaged").read_bytes() == b"0badc0de {}\n12345678 {"


def test_a_shipper_that_is_asked_to_stop_leaves_nothing_behind(nats: NatsServer, tmp_path: Path) -> None:
    """The spool of a pod ends with the pod."""
    nats.run(lambda stream: stream.create_streams())
    spool, stopping = tmp_path / "spool", asyncio.Event()
    with SpoolWriter(spool / "late", durable=False) as writer:
        writer.append(*[prediction_record(number) for number in range(3000)])

    async def stop_once_connected() -> None:
        shipping = asyncio.ensure_future(ship(spool, nats.url, stopping, reports=tmp_path))
        while not nats_has_messages():
            await asyncio.sleep(0)
        stopping.set()
        await shipping

    def nats_has_messages() -> bool:
        return pending_bytes(spool) < whole

    whole = pending_bytes(spool)
    asyncio.run(stop_once_connected())
    assert pending_bytes(spool) == 0
    assert len(nats.messages(PREDICTIONS, "late")) == 3000


def test_a_shipper_that_starts_again_does_not_ship_again(nats: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with SpoolWriter(home / "spool" / "late", durable=True) as writer:
        for number in range(3):
            writer.append(prediction_record(number))
        for _ in range(2):
            shipper = start_shipper(nats, home)
            wait_for(lambda: pending_bytes(home / "spool") == 0)
            shipper.kill()
            shipper.wait()
            nats.run(lambda stream: stream.jetstream.purge_stream(PREDICTIONS))
        writer.append(prediction_record(3))
        shipper = start_shipper(nats, home)
        wait_for(lambda: pending_bytes(home / "spool") == 0)
        shipper.kill()
        shipper.wait()
    assert [decode_record(message.data) for message in nats.messages(PREDICTIONS, "late")] == [prediction_record(3)]


def test_a_message_id_is_stored_once_also_by_a_server_that_was_killed(nats: NatsServer) -> None:
    messages = [Message(subject(PREDICTIONS, "late"), str(number), b"x") for number in range(500)]
    nats.run(lambda stream: stream.publish(messages))
    nats.kill()
    nats.start()
    nats.run(lambda stream: stream.publish([*messages, Message(subject(PREDICTIONS, "late"), "500", b"x")]))
    assert len(nats.messages(PREDICTIONS, "late")) == 501


def test_more_messages_than_a_batch_has_are_stored_in_order_and_each_once(nats: NatsServer) -> None:
    messages = [Message(subject(PREDICTIONS, "late"), str(number), str(number).encode()) for number in range(2500)]

    async def use(stream: EventStream) -> None:
        await stream.publish(messages[600:700])
        await stream.publish([*messages, messages[3], Message(subject(REJECTS, "late"), "r", b"why")])

    nats.run(use)
    stored = [int(message.data) for message in nats.messages(PREDICTIONS, "late")]
    assert stored == [*range(600, 700), *range(600), *range(700, 2500)]
    assert [message.data for message in nats.messages(REJECTS, "late")] == [b"why"]


def test_of_messages_that_do_not_fit_those_that_do_are_stored(nats: NatsServer) -> None:
    async def use(stream: EventStream) -> None:
        configuration = (await stream.jetstream.stream_info(PREDICTIONS)).config
        configuration.max_bytes = 2000
        await stream.jetstream.update_stream(configuration)
        await stream.publish([Message(subject(PREDICTIONS, "late"), str(number), b"x" * 100) for number in range(100)])

    with pytest.raises(NotStoredError, match="maximum bytes exceeded"):
        nats.run(use)
    assert 5 < len(nats.messages(PREDICTIONS, "late")) < 20


def test_several_processes_share_a_consumer_and_what_one_leaves_is_given_out_again(nats: NatsServer) -> None:
    async def use(stream: EventStream) -> tuple[list[bytes], list[bytes], int]:
        await stream.publish([Message(subject(PREDICTIONS, "late"), str(n), str(n).encode()) for n in range(6)])
        shared = {"durable": "shared", "acknowledge_seconds": 1, "ahead": 3}
        async with open_flow(stream, PREDICTIONS, "late", **shared) as flow:
            lost = await flow.take(minimum=3, maximum=3, wait_seconds=30)
        async with open_flow(stream, PREDICTIONS, "late", **shared) as flow:
            taken = await flow.take(minimum=3, maximum=3, wait_seconds=30)
            for message in taken:
                await message.ack_sync()
            again = await flow.take(minimum=3, maximum=3, wait_seconds=30)
        pending = await stream.waiting(PREDICTIONS, "late", durable="shared")
        assert {message.data for message in lost} == {message.data for message in again}
        return [message.data for message in taken], [message.data for message in again], pending

    taken, again, pending = nats.run(use)
    assert sorted(taken + again) == [str(n).encode() for n in range(6)]
    assert pending == 3


def test_one_that_leaves_while_messages_come_keeps_none_of_them(nats: NatsServer) -> None:
    count = 3000
    shared = {"durable": "many", "acknowledge_seconds": 600}

    async def use(stream: EventStream) -> int:
        await stream.publish([Message(subject(PREDICTIONS, "many"), f"m{number}", b"{}") for number in range(count)])
        for _ in range(10):
            async with open_flow(stream, PREDICTIONS, "many", ahead=2000, **shared) as flow:
                for message in await flow.take(minimum=1, maximum=1, wait_seconds=20):
                    await message.nak()
        async with open_flow(stream, PREDICTIONS, "many", ahead=count, **shared) as flow:
            return len(await flow.take(minimum=count, maximum=count, wait_seconds=30))

    assert nats.run(use) == count


def test_a_stream_that_is_full_refuses_instead_of_losing(nats: NatsServer) -> None:
    async def use(stream: EventStream) -> None:
        configuration = (await stream.jetstream.stream_info(PREDICTIONS)).config
        configuration.max_bytes = 2000
        await stream.jetstream.update_stream(configuration)
        for number in range(100):
            await stream.publish([Message(subject(PREDICTIONS, "late"), str(number), b"x" * 100)])

    with pytest.raises(NotStoredError, match="maximum bytes exceeded"):
        nats.run(use)
    # The next connection gives the stream its limit back.
    assert nats.messages(PREDICTIONS, "late")[0].data == b"x" * 100
    nats.run(lambda stream: stream.publish([Message(subject(PREDICTIONS, "late"), "new", b"x")]))


def test_without_a_server_an_impatient_connection_is_an_error(nats: NatsServer) -> None:
    nats.kill()
    with pytest.raises(EventStreamError, match="mlops up"):
        nats.run(lambda stream: asyncio.sleep(0))


def test_waiting_for_a_server_ends_when_asked_to_stop(nats: NatsServer, tmp_path: Path) -> None:
    nats.kill()
    shipper = start_shipper(nats, tmp_path / "home")
    assert shipper.stderr is not None
    # It has looked for the server, and waits.
    assert "Event stream at " in shipper.stderr.readline()
    shipper.send_signal(signal.SIGTERM)
    assert shipper.wait(60) == 0
    assert "Traceback" not in shipper.stderr.read()


def test_a_publication_during_an_outage_is_an_error_and_works_afterwards(nats: NatsServer) -> None:
    async def use() -> None:
        message = Message(subject(PREDICTIONS, "late"), "1", b"x")
        async with connect(nats.url, name="test", stopping=asyncio.Event()) as stream:
            nats.kill()
            with pytest.raises(NotStoredError):
                await stream.publish([message])
            nats.start()
            while True:
                try:
                    await stream.publish([message])
                    break
                except NotStoredError:
                    await asyncio.sleep(0.1)

    asyncio.run(use())
    assert len(nats.messages(PREDICTIONS, "late")) == 1


@pytest.mark.parametrize("reply", ["predictions.late", "rejects.late", "_INBOX.platform.x", "$JS.API.STREAM.PURGE.predictions"])
def test_a_caller_has_nothing_answered_into_the_platforms_subjects(nats: NatsServer, reply: str) -> None:
    async def ask(stream: EventStream) -> tuple[list[int], list[bytes]]:
        await stream.publish([Message(subject(PREDICTIONS, "late"), "1", b"real")])
        heard: list[bytes] = []

        async def hear(message: Msg) -> None:
            heard.append(message.data)

        # The platform's connection hears every subject; the caller's own inbox shows that both questions were answered.
        await stream.client.subscribe(reply, cb=hear)
        caller = event_stream_caller(nats.settings)
        client = await connect_as(nats.settings.nats_server_url, user=caller.name, password=caller.password)
        for question, payload in ((subject(REQUESTS, "late"), b"{}"), (f"$JS.API.STREAM.MSG.GET.{PREDICTIONS}", b'{"seq":1}')):
            await client.publish(question, payload, reply=reply)
            assert b'"seq":' in (await client.request(question, payload, timeout=30)).data
        await client.close()
        states = [(await stream.jetstream.stream_info(name)).state for name in (REQUESTS, PREDICTIONS, REJECTS)]
        return [int(state.messages) for state in states], heard

    assert nats.run(ask) == ([2, 1, 0], [])


def test_a_caller_reads_new_predictions_and_stored_ones(nats: NatsServer) -> None:
    async def read(stream: EventStream) -> tuple[bytes, bytes | None]:
        caller = event_stream_caller(nats.settings)
        client = await connect_as(nats.settings.nats_server_url, user=caller.name, password=caller.password)
        predictions = await client.subscribe(f"{PREDICTIONS}.*")
        # The ping of the first overtakes the subscription, which nats-py writes afterwards; the second follows it.
        await client.flush()
        await client.flush()
        await stream.publish([Message(subject(PREDICTIONS, "late"), "1", b"late by 5")])
        new = (await predictions.next_msg(timeout=30)).data
        stored = (await client.jetstream().get_msg(PREDICTIONS, 1)).data
        await client.close()
        return new, stored

    assert nats.run(read) == (b"late by 5", b"late by 5")


def test_streams_of_a_server_without_accounts_are_kept(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    user = event_stream_platform(server.settings)
    former = tmp_path / "former.conf"
    former.write_text(
        f'listen: "127.0.0.1:{server.port}"\nauthorization {{ users: [{{ user: {user.name}, password: "{user.password}" }}] }}\n'
        f'jetstream {{ store_dir: "{server.settings.home}/nats" }}\n'
    )
    process = subprocess.Popen([str(scripts_directory() / "nats-server"), "--config", str(former)], stderr=subprocess.DEVNULL)
    try:

        async def store() -> None:
            async with connect(server.url, name="test", stopping=asyncio.Event()) as stream:
                await stream.publish([Message(subject(PREDICTIONS, "late"), str(number), b"x") for number in range(3)])

        asyncio.run(store())
    finally:
        process.kill()
        process.wait()
    control.keep_event_streams(server.settings)
    server.start()
    try:
        assert [message.data for message in server.messages(PREDICTIONS, "late")] == [b"x"] * 3
    finally:
        server.kill()
