"""What a stream scorer does without its model: take events, publish a message for each, acknowledge. `passing_on.py SOLUTION`."""

import asyncio
import os
import sys

from mlops_assets.clients.event_flow import open_flow
from mlops_assets.clients.event_stream import PREDICTIONS, REQUESTS, connect, scorer_consumer, subject
from mlops_assets.clients.publishing import Message
from mlops_assets.serving.process import run


async def pass_on(stopping: asyncio.Event) -> None:
    """Until `stopping` is set."""
    solution = sys.argv[1]
    target, durable = subject(PREDICTIONS, solution), scorer_consumer(solution)
    async with (
        connect(os.environ["MLOPS_NATS_URL"], name="passing on", stopping=stopping) as stream,
        open_flow(stream, REQUESTS, solution, durable=durable, acknowledge_seconds=30, ahead=1000) as flow,
    ):
        while not stopping.is_set():
            events = await flow.take(minimum=1, maximum=200, wait_seconds=1)
            await stream.publish([Message(target, f"p{each.metadata.sequence.stream}", each.data) for each in events])
            for each in events:
                await each.ack()


if __name__ == "__main__":
    run(pass_on)
