"""The process of a server without HTTP: its log, and the signals that ask it to stop."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine

from mlops_assets.clients.event_stream import StoppedError
from mlops_assets.core.named_lines import name_lines


def run(serve: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Run `serve` to its end. It gets an event that SIGTERM and SIGINT set: it finishes what it has begun, then returns."""
    name_lines()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with contextlib.suppress(StoppedError):
        asyncio.run(_run(serve))


async def _run(serve: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await serve(stopping)
