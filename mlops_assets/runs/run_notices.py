"""What a run tells the daemon through Postgres, at once: that it waits for its start, or that it has ended.

NOTIFY costs nothing while nothing happens (https://www.postgresql.org/docs/current/sql-notify.html). It is a hint and no more: who listens looks
at the storage, and looks now and then without one. Behind a pool of connections that gives each transaction another one, none arrive.
"""

import logging
import select
import time
from collections.abc import Callable
from enum import StrEnum

from dagster import DagsterEventType
from sqlalchemy import text
from sqlalchemy.engine import Engine

_CHANNEL = "mlops_runs"
_ALIVE_SECONDS = 60.0
_AGAIN_SECONDS = 2.0
_log = logging.getLogger(__name__)


class RunNotice(StrEnum):
    """What happened to some run."""

    QUEUED = "queued"
    ENDED = "ended"
    """Or something was recorded outside of runs."""


NOTICES = {
    DagsterEventType.RUN_ENQUEUED: RunNotice.QUEUED,
    DagsterEventType.RUN_SUCCESS: RunNotice.ENDED,
    DagsterEventType.RUN_FAILURE: RunNotice.ENDED,
    DagsterEventType.RUN_CANCELED: RunNotice.ENDED,
}
"""The events of a run that somebody waits for."""


def send(engine: Engine, notice: RunNotice) -> None:
    """Tell all that listen at the database of `engine`."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_notify(:channel, :notice)"), {"channel": _CHANNEL, "notice": notice})


def listen(engine: Engine, hear: Callable[[RunNotice], None]) -> None:
    """Call `hear` for each notice, for ever.

    At the beginning, and after a time without a connection, it is called for every kind: any may have been missed.
    """
    while True:
        try:
            _listen(engine, hear)
        except (
            Exception
        ) as error:  # whatever ends the connection: the interval of the listener stands in for the notices meanwhile
            _log.warning("Notices of runs do not arrive, trying again in %.0f s: %s", _AGAIN_SECONDS, type(error).__name__)
            time.sleep(_AGAIN_SECONDS)


def _listen(engine: Engine, hear: Callable[[RunNotice], None]) -> None:
    """Call `hear` until the connection ends, which raises the driver's error."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    assert connection is not None
    pooled.detach()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {_CHANNEL}")
            for notice in RunNotice:
                hear(notice)
            while True:
                if not select.select([connection], [], [], _ALIVE_SECONDS)[0]:
                    # A connection whose other end is gone without a word is not readable either.
                    cursor.execute("SELECT 1")
                connection.poll()
                heard = {notify.payload for notify in connection.notifies}
                connection.notifies.clear()
                for notice in RunNotice:
                    if notice in heard:
                        hear(notice)
    finally:
        connection.close()
