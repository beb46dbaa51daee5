"""What the server processes of other machines serve: over the event stream each machine answers with the reports in its folder."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.event_stream import INBOX_PREFIX, brief_connection_options
from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.settings import Settings
from mlops_assets.serving.reports import ProcessReport, read_fresh_reports, read_reports

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_REPORTS = "servers.reports"
"""The subject of the question. No stream keeps it."""
_ANSWER_SECONDS = 2.0
_QUIET_SECONDS = 0.5
"""Machines answer in milliseconds: when none has for so long after another one, all have."""
_CONNECT_SECONDS = 2
_log = logging.getLogger(__name__)


class ReportsUnreachableError(StackError, AwayError):
    """The event stream, over which servers of other machines report, does not answer."""


async def answer_with_reports(client: "Client", directory: Path) -> None:
    """Answer whoever asks over the connection `client`, as long as it lasts, with the reports in `directory`."""

    async def answer(question: "Msg") -> None:
        await question.respond(msgspec.json.encode(read_fresh_reports(directory, datetime.now(UTC))))

    await client.subscribe(_REPORTS, cb=answer)


def read_all_reports(settings: Settings) -> list[ProcessReport]:
    """The reports of the processes that run: of this machine, and where the event stream is elsewhere, of all that use it.

    Raises ReportsUnreachableError.
    """
    own = read_reports(settings.server_reports_directory)
    if settings.nats_url is None:
        return own
    reports = asyncio.run(_ask(event_stream_url(settings)))
    known = {report.identity: report for report in [*reports, *own]}
    return sorted(known.values(), key=lambda report: report.identity)


async def _ask(url: str) -> list[ProcessReport]:
    import nats
    from nats import errors

    try:
        client = await nats.connect(
            **brief_connection_options(url),
            inbox_prefix=INBOX_PREFIX.encode(),
            connect_timeout=_CONNECT_SECONDS,
            error_cb=_ignore,
        )
        try:
            return await _answers(client)
        finally:
            await client.close()
    except (errors.Error, OSError) as error:
        raise ReportsUnreachableError(
            f"The event stream, over which servers report, does not answer: {type(error).__name__}.",
            remedy="Look at the server in MLOPS_NATS_URL.",
        ) from error


async def _answers(client: "Client") -> list[ProcessReport]:
    """What all machines answer."""
    from nats import errors

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(_REPORTS, reply=inbox)
    reports: list[ProcessReport] = []
    deadline, quiet = time.monotonic() + _ANSWER_SECONDS, _ANSWER_SECONDS
    while (left := min(deadline - time.monotonic(), quiet)) > 0:
        try:
            answer = await subscription.next_msg(left)
        except errors.TimeoutError:
            break
        if not answer.data:
            break  # NATS says that nobody listens
        reports += msgspec.json.decode(answer.data, type=list[ProcessReport])
        quiet = _QUIET_SECONDS
    return reports


async def _ignore(_: Exception) -> None:
    """Told by the exception that ends the question."""
