"""The embedded NATS after its disk was full: it is started again, since it stores nothing more in a stream once a write of it has failed.

Its health check says so, and only another start helps (https://github.com/nats-io/nats-server/pull/7788). Who runs a NATS elsewhere lets the
health check `/healthz` decide about its life.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal

from mlops_assets.access.credentials import event_stream_system_url
from mlops_assets.clients.event_stream import brief_connection_options
from mlops_assets.clients.stopping import wait_for
from mlops_assets.core.settings import Settings

ROOM_BYTES = 50 << 20
"""Without so much room on the disk a new start would not help for long."""

_LOOK_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_HEALTH = "$SYS.REQ.SERVER.PING.HEALTHZ"
_WRITE_ERROR = " write error: "
_log = logging.getLogger(__name__)


async def end_after_failed_writes(settings: Settings, stopping: asyncio.Event) -> None:
    """Until `stopping` is set, end the server when it stores nothing more and its disk has room: supervisor starts it again."""
    while not await wait_for(stopping, _LOOK_SECONDS):
        await end_after_failed_write(settings)


async def end_after_failed_write(settings: Settings) -> bool:
    """End the server if it stores nothing more in some stream, and its disk has room. Returns whether it was told to end."""
    error = await _write_error(event_stream_system_url(settings))
    if error is None:
        return False
    free = shutil.disk_usage(settings.home).free
    if free < ROOM_BYTES:
        _log.error("The event stream stores nothing more, and its disk has %.0f MB left: make room. %s", free / 1e6, error)
        return False
    _log.error("The event stream stores nothing more and is started again: %s", error)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended of its own meanwhile
        os.kill(int(settings.nats_pid_file.read_text()), signal.SIGTERM)
    return True


async def _write_error(url: str) -> str | None:
    """What the server says of a write that failed, None when none did or it does not answer."""
    import nats
    from nats import errors

    try:
        client = await nats.connect(
            **brief_connection_options(url),
            connect_timeout=_ANSWER_SECONDS,
            error_cb=_ignore,
        )
        try:
            answer = await client.request(_HEALTH, timeout=_ANSWER_SECONDS)
        finally:
            await client.close()
    except (errors.Error, OSError, TimeoutError):
        return None  # away: whoever uses it says so
    error = json.loads(answer.data)["data"].get("error", "")
    return error if _WRITE_ERROR in error else None


async def _ignore(_: Exception) -> None:
    """A server that is away is no news here."""
