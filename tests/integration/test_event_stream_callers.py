"""Callers of a real NATS: each has the subjects of its own solutions, by a credential that is renewed and taken away without a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from nats import connect as connect_as
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats_server import NatsServer

from mlops_assets.access.callers import add_caller, add_person, read_callers, remove_caller, rotate_token
from mlops_assets.clients.event_stream import PREDICTIONS, REQUESTS, EventStream, subject
from mlops_assets.clients.event_stream_callers import caller_address, reload_callers, write_callers
from mlops_assets.clients.publishing import Message

OWN, OTHER = "parcels", "letters"
ENOUGH = 30


def add(nats: NatsServer, name: str, *solutions: str) -> str:
    """The address of a new caller, whom the running server knows."""
    add_caller(nats.settings, name, solutions, requests_per_second=None, burst=1)
    asyncio.run(apply(nats))
    return address(nats, name)


async def apply(nats: NatsServer) -> None:
    """Have the running server know the callers, as the shipper does."""
    assert write_callers(nats.settings)
    assert await reload_callers(nats.settings)


def address(nats: NatsServer, name: str) -> str:
    """The address of a caller with its newest token."""
    [caller] = [caller for caller in read_callers(nats.settings.callers_file) if caller.name == name]
    return caller_address(nats.settings, name, caller.tokens[-1])


@asynccontextmanager
async def connected(url: str, violations: list[str]) -> AsyncIterator[Client]:
    """A connection once the server knows the user: it reads its configuration a moment after the signal."""

    async def report(error: Exception) -> None:
        violations.append(str(error))

    async with asyncio.timeout(ENOUGH):
        while True:
            try:
                client = await connect_as(url, allow_reconnect=False, error_cb=report)
                break
            except errors.Error:
                await asyncio.sleep(0.05)
    violations.clear()
    try:
        yield client
    finally:
        await client.close()


async def refused(url: str) -> bool:
    """Whether the server ends up letting nobody in with this address."""

    async def ignore(_: Exception) -> None:
        pass

    async with asyncio.timeout(ENOUGH):
        while True:
            try:
                await (await connect_as(url, allow_reconnect=False, error_cb=ignore)).close()
            except errors.Error:
                return True
            await asyncio.sleep(0.05)


def test_an_application_asks_its_solution_and_hears_its_predictions_alone(nats: NatsServer) -> None:
    url, violations = add(nats, "shop", OWN), list[str]()

    async def use(platform: EventStream) -> tuple[str, list[bytes], int]:
        async with connected(url, violations) as client:
            heard = await client.subscribe(subject(PREDICTIONS, OWN))
            await client.flush()
            await client.flush()
            await platform.publish(
                [Message(subject(PREDICTIONS, name), name, name.encode()) for name in (OTHER, OWN, f"{OWN}2")]
                + [Message(subject(PREDICTIONS, OWN), "last", b"last")]
            )
            data = [(await heard.next_msg(timeout=ENOUGH)).data for _ in range(2)]
            acknowledged = await client.jetstream().publish(subject(REQUESTS, OWN), b"{}")
            assert violations == []
            publications = [
                subject(REQUESTS, OTHER),
                subject(PREDICTIONS, OWN),
                f"$JS.API.STREAM.MSG.GET.{PREDICTIONS}",
                f"$JS.API.STREAM.INFO.{PREDICTIONS}",
                f"$JS.API.STREAM.PURGE.{PREDICTIONS}",
                f"$JS.API.STREAM.DELETE.{REQUESTS}",
                f"$JS.API.CONSUMER.CREATE.{PREDICTIONS}",
                f"$JS.API.CONSUMER.DELETE.{REQUESTS}.scorer-{OTHER}",
                f"$JS.API.DIRECT.GET.{PREDICTIONS}",
                "$JS.ACK.predictions.x",
                "$SYS.REQ.SERVER.PING",
            ]
            subscriptions = [subject(PREDICTIONS, OTHER), f"{PREDICTIONS}.*", f"{REQUESTS}.>", "$JS.>", ">"]
            for forbidden in publications:
                await client.publish(forbidden, b'{"seq":1}')
            for forbidden in subscriptions:
                await client.subscribe(forbidden)
            async with asyncio.timeout(ENOUGH):
                while len(violations) < len(publications) + len(subscriptions):
                    await asyncio.sleep(0.01)
            messages = (await platform.jetstream.stream_info(REQUESTS)).state.messages
        return acknowledged.stream, data, int(messages or 0)

    assert nats.run(use) == (REQUESTS, [OWN.encode(), b"last"], 1)
    assert all("permissions violation" in each for each in violations)


def test_no_caller_hears_what_another_one_is_answered(nats: NatsServer) -> None:
    first, second = add(nats, "shop", OWN), add(nats, "rival", OWN)

    async def use(platform: EventStream) -> list[bytes]:
        async with connected(first, []) as client, connected(second, []) as rival:
            heard: list[bytes] = []

            async def hear(message: Msg) -> None:
                heard.append(message.data)

            await rival.subscribe("_INBOX.>", cb=hear)
            await rival.flush()
            await client.jetstream().publish(subject(REQUESTS, OWN), b"{}")
            await rival.flush()
            await rival.flush()
            return heard

    assert nats.run(use) == []


def test_one_that_may_ask_every_solution_looks_up_stored_predictions(nats: NatsServer) -> None:
    url = add(nats, "warehouse", "*")

    async def use(platform: EventStream) -> tuple[bytes | None, str]:
        await platform.publish([Message(subject(PREDICTIONS, OTHER), "1", b"stored")])
        async with connected(url, []) as client:
            stored = (await client.jetstream().get_msg(PREDICTIONS, 1)).data
            return stored, (await client.jetstream().publish(subject(REQUESTS, OTHER), b"{}")).stream

    assert nats.run(use) == (b"stored", REQUESTS)


def test_credentials_are_renewed_and_taken_away_while_connections_stay(nats: NatsServer) -> None:
    first, other = add(nats, "shop", OWN), add(nats, "other", OTHER)

    async def ask(client: Client, solution: str) -> bool:
        return (await client.jetstream().publish(subject(REQUESTS, solution), b"{}")).stream == REQUESTS

    async def use(platform: EventStream) -> list[bool]:
        async with connected(other, []) as stays, connected(first, []) as former:
            rotate_token(nats.settings, "shop", timedelta(hours=1))
            await apply(nats)
            second = address(nats, "shop")
            async with connected(second, []) as client:
                both = [await ask(client, OWN), await ask(former, OWN)]
            rotate_token(nats.settings, "shop", timedelta(0))
            await apply(nats)
            over = [await refused(first), await refused(second), former.is_closed]
            third = address(nats, "shop")
            async with connected(third, []) as client:
                over.append(await ask(client, OWN))
            remove_caller(nats.settings, "shop")
            await apply(nats)
            return [*both, *over, await refused(third), await ask(stays, OTHER)]

    assert all(nats.run(use))


@pytest.mark.parametrize("name", [">", "*.x", 'a"b', f"{OWN}.>"])
def test_a_name_that_is_no_solution_opens_no_subject(nats: NatsServer, name: str) -> None:
    add_caller(nats.settings, "odd", (name,), requests_per_second=None, burst=1)
    add_person(nats.settings, "anna", "operator")
    url = add(nats, "shop", OWN)  # the server reads the file
    accounts = nats.settings.nats_callers_file.read_text().splitlines()[1:]
    assert [account.partition(":")[0] for account in accounts] == ['"CALLER_shop"']

    async def use(platform: EventStream) -> bool:
        async with connected(url, []):
            return True

    assert nats.run(use)


def test_callers_that_cannot_be_read_let_nobody_in_and_are_told_once(nats: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    url = add(nats, "shop", OWN)

    async def use(platform: EventStream) -> bool:
        async with connected(url, []):
            nats.settings.callers_file.write_text("[{")
            await apply(nats)
            assert not write_callers(nats.settings)  # it is looked at twice a second
        return await refused(url)

    assert nats.run(use)
    assert caplog.text.count("Only the user `caller` of the event stream is let in") == 1
