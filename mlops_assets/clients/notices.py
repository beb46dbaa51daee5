"""Notices that the bundles of servers changed, over the event stream. Whoever misses one looks a little later by itself."""

import asyncio
import logging
from pathlib import Path

from mlops_assets.clients.event_stream import brief_connection_options, connection_options
from mlops_assets.clients.stopping import wait_for

BUNDLES_CHANGED = "bundles.changed"
"""The subject. No stream keeps it."""

FOLLOWED = ".followed"
"""The file in the folder of bundles whose age tells when they were looked at; a notice removes it."""

_CONNECT_SECONDS = 2
_RECONNECT_SECONDS = 1.0
_log = logging.getLogger(__name__)


def publish_notice(url: str, directory: Path) -> None:
    """Tell the servers of this machine, whose bundles are in `directory`, and those of all others, over the event stream at `url`.

    An event stream that is away is no fault: servers look by themselves.
    """
    (directory / FOLLOWED).unlink(missing_ok=True)
    asyncio.run(_publish(url))


async def _publish(url: str) -> None:
    import nats
    from nats import errors

    try:
        client = await nats.connect(
            **brief_connection_options(url),
            connect_timeout=_CONNECT_SECONDS,
            error_cb=_ignore,
        )
        await client.publish(BUNDLES_CHANGED)
        await client.flush()
        await client.close()
    except (errors.Error, OSError) as error:
        _log.info("No notice of the change: %s. Servers look by themselves.", error or type(error).__name__)


async def follow_notices(url: str, directory: Path, stopping: asyncio.Event) -> None:
    """Have the bundles in `directory` looked at whenever a notice comes, until `stopping` is set."""
    import nats
    from nats import errors

    async def look(_: object) -> None:
        (directory / FOLLOWED).unlink(missing_ok=True)

    while not stopping.is_set():
        try:
            client = await nats.connect(
                **connection_options(url), name="bundle notices", max_reconnect_attempts=-1, error_cb=_ignore
            )
        except (errors.Error, OSError):
            await wait_for(stopping, _RECONNECT_SECONDS)
            continue
        await client.subscribe(BUNDLES_CHANGED, cb=look)
        await stopping.wait()
        await client.close()


async def _ignore(_: Exception) -> None:
    """What the shipper reports too, or the publisher as its own fault."""
