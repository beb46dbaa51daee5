"""The event stream on a real cluster of three servers: what was acknowledged survives the loss of one, and a client goes on with the others."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import pytest
from nats import errors
from nats_cluster import NatsCluster, nats_cluster

from mlops_assets.clients.event_flow import open_flow
from mlops_assets.clients.event_stream import PREDICTIONS, EventStream, connect, subject
from mlops_assets.clients.publishing import EventStreamError, Message, NotStoredError

COUNT = 200


async def publish(stream: EventStream, numbers: range) -> None:
    """Publish until it is acknowledged, as the shipper does."""
    messages = [Message(subject(PREDICTIONS, "parcels"), f"id-{number}", f"{number}".encode()) for number in numbers]
    while True:
        try:
            await stream.publish(messages)
        except NotStoredError:
            await asyncio.sleep(0.2)
        else:
            return


async def lose_the_leader(cluster: NatsCluster) -> tuple[int, Counter[str]]:
    """Publish before and after the server that leads the stream is killed; return its replicas and how often each message is there."""
    async with connect(cluster.url, name="test", stopping=asyncio.Event()) as stream:
        await publish(stream, range(COUNT))
        information = await stream.jetstream.stream_info(PREDICTIONS)
        assert information.cluster is not None
        assert information.cluster.leader is not None
        cluster.kill(information.cluster.leader)
        await publish(stream, range(COUNT // 2, 2 * COUNT))
        found: Counter[str] = Counter()
        while len(found) < 2 * COUNT:
            # Another server has to lead the others before there are new consumers.
            with contextlib.suppress(errors.Error):
                async with open_flow(
                    stream, PREDICTIONS, "parcels", durable="reader", acknowledge_seconds=60, ahead=1000
                ) as flow:
                    while len(found) < 2 * COUNT:
                        found.update(
                            message.data.decode() for message in await flow.take(minimum=1, maximum=1000, wait_seconds=1)
                        )
        return information.config.num_replicas or 0, found


@pytest.mark.long
def test_what_was_acknowledged_survives_the_loss_of_a_server(tmp_path: Path) -> None:
    with nats_cluster(tmp_path) as cluster:
        replicas, found = asyncio.run(asyncio.wait_for(lose_the_leader(cluster), 120))
    assert replicas == 3
    assert found == Counter(str(number) for number in range(2 * COUNT))


def test_an_even_number_of_replicas_is_refused() -> None:
    async def use() -> None:
        async with connect("nats://127.0.0.1:1?replicas=2", name="test", stopping=None):
            pass

    with pytest.raises(EventStreamError, match="replicas=2 in MLOPS_NATS_URL is not 1, 3 or 5"):
        asyncio.run(use())
