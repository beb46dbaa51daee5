"""Waiting of a process that may be asked to stop meanwhile, which sets an event of asyncio."""

import asyncio
import contextlib


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Sleep for `seconds`, or until `event` is set: whether it is."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def done_before(future: asyncio.Future, event: asyncio.Event) -> bool:
    """Whether `future` was done before `event` was set; else it is cancelled."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({future, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not future.done():
        future.cancel()
        return False
    return True
