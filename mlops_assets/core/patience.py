"""Waiting for a server that is away for a moment, such as a database that starts again."""

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mlops_assets.core.errors import AwayError

if TYPE_CHECKING:
    from tenacity import RetryCallState

PATIENCE_SECONDS = 120.0
"""How long a command waits: the supervisor has a killed server back in seconds, a busy machine in a minute."""

LOST_CONNECTION = re.compile(
    r"server closed the connection|terminating connection|connection (?:refused|reset)|no connection to"
    r"|SSL SYSCALL error|SSL connection has been closed unexpectedly|SSL error: unexpected eof"
    r"|could not (?:receive data from|send data to) server"
    r"|(?:starting up|shutting down|in recovery mode)$|connection to server .* failed|too many retries for DB connection",
    re.I | re.M,
)
"""What Postgres's library says, with TLS or without, whoever reports it, and Dagster's storage of it, when the server went away or is not
back yet.
"""

_FIRST_SECONDS, _MOST_SECONDS = 0.5, 5.0

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


def patiently(ask: Callable[[], _Answer], *, seconds: float = PATIENCE_SECONDS) -> _Answer:
    """What `ask` returns, which is called again for `seconds` while it raises AwayError: it must do no harm twice.

    Says once that it waits. Raises the last AwayError when the time is over.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

    again = Retrying(
        retry=retry_if_exception_type(AwayError),
        wait=wait_exponential(min=_FIRST_SECONDS, max=_MOST_SECONDS),
        stop=stop_after_delay(seconds),
        before_sleep=_say,
        reraise=True,
    )
    return again(ask)


def _say(state: "RetryCallState") -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        problem = str(state.outcome.exception()).partition("\n")[0]
        _log.warning("%s Waiting for it.", problem)
