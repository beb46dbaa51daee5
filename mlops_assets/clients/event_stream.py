"""The event stream: NATS JetStream with one stream for the requests, one for the predictions, one for the rejected requests.

Streams belong here, publishing to `publishing.py`, reading to `event_flow.py`, what the messages say to none of them. Each stream has a
subject a solution: `predictions.<solution>`. For asyncio: a connection belongs to the event loop that made it.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from nats import errors
from nats.js import api
from nats.js import errors as jetstream_errors

from mlops_assets.access.tls import client_context
from mlops_assets.clients.publishing import EventStreamError, Message, Publisher
from mlops_assets.clients.stopping import done_before, wait_for
from mlops_assets.core.environment_files import environment_name, refuse_other_environment

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

REQUESTS = "requests"
PREDICTIONS = "predictions"
REJECTS = "rejects"

DUPLICATE_WINDOW_SECONDS = 600.0
"""A message whose id came within this time before is not stored again. The server keeps the ids in memory."""

INBOX_PREFIX = "_INBOX.platform"
"""What the platform's connections are answered at: a caller's may not listen there."""

_DAY_SECONDS = 24 * 60 * 60.0
_ENVIRONMENT = "mlops_environment"
"""In the metadata of a stream: the environment that it serves."""
_WAIT_SECONDS = 5.0
_RECONNECT_SECONDS = 0.5
_SHOWN_BYTES = 100_000

_log = logging.getLogger(__name__)


class StoppedError(EventStreamError):
    """The process was asked to stop while it waited for the server."""


def subject(stream: str, solution: str) -> str:
    """The subject of one solution in `stream`."""
    return f"{stream}.{solution}"


def lake_consumer(solution: str) -> str:
    """The consumer of a solution's predictions that remembers which are in the lake."""
    return f"lake-{solution}"


def scorer_consumer(solution: str) -> str:
    """The consumer of a solution's requests that all its scorers share."""
    return f"scorer-{solution}"


def reject_message(solution: str, source: "Msg", reason: str) -> Message:
    """The message that tells why `source` was not taken: JSON with `reason`, where it came from, and how it began."""
    origin = source.metadata
    reject = {
        "reason": reason,
        "subject": source.subject,
        "sequence": origin.sequence.stream,
        "stored_at": origin.timestamp.isoformat(),
        "message": source.data[:_SHOWN_BYTES].decode(errors="replace"),
    }
    return Message(subject(REJECTS, solution), f"{origin.stream}-{origin.sequence.stream}", json.dumps(reject).encode())


def stream_configurations(replicas: int) -> list[api.StreamConfig]:
    """The streams and their limits, each on so many servers of a cluster.

    Requests leave when they are answered; a full stream refuses what is new instead of losing the old.
    """

    def configuration(
        name: str, description: str, retention: api.RetentionPolicy, *, megabytes: int, discard: api.DiscardPolicy
    ) -> api.StreamConfig:
        return api.StreamConfig(
            name=name,
            description=description,
            subjects=[f"{name}.*"],
            retention=retention,
            max_bytes=megabytes << 20,
            max_age=7 * _DAY_SECONDS,
            discard=discard,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            storage=api.StorageType.FILE,
            num_replicas=replicas,
            allow_atomic=True,
            metadata={_ENVIRONMENT: environment_name()},
        )

    work_queue, limits = api.RetentionPolicy.WORK_QUEUE, api.RetentionPolicy.LIMITS
    new, old = api.DiscardPolicy.NEW, api.DiscardPolicy.OLD
    return [
        configuration(REQUESTS, "Rows to be predicted.", work_queue, megabytes=1024, discard=new),
        configuration(PREDICTIONS, "Predictions of the online and the stream channel.", limits, megabytes=4096, discard=new),
        configuration(REJECTS, "Requests that could not be answered, with the reason.", limits, megabytes=256, discard=old),
    ]


class EventStream:
    """A connection to the event stream, made by `connect`."""

    def __init__(self, client: "Client", replicas: int):
        self.client = client
        self._replicas = replicas
        self.jetstream: JetStreamContext = client.jetstream(timeout=_WAIT_SECONDS)
        self._publisher = Publisher(client)

    async def open(self) -> None:
        """Receive the acknowledgements of what is published."""
        await self._publisher.open()

    @property
    def maximum_payload(self) -> int:
        """The most bytes that a message may have."""
        return int(self.client.max_payload)

    async def create_streams(self) -> bool:
        """Create the streams that do not exist, and give the others the limits of this version. False when JetStream is not ready.

        Raises StackError when they are of another environment.
        """
        try:
            for configuration in stream_configurations(self._replicas):
                try:
                    await self.jetstream.add_stream(configuration)
                except jetstream_errors.BadRequestError:
                    known = (await self.jetstream.stream_info(str(configuration.name))).config.metadata or {}
                    if owner := known.get(_ENVIRONMENT):
                        refuse_other_environment(f"The stream {configuration.name} of MLOPS_NATS_URL", owner)
                    await self.jetstream.update_stream(configuration)
        except (errors.TimeoutError, errors.NoRespondersError, jetstream_errors.ServiceUnavailableError):
            return False
        return True

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store `messages`, see `Publisher.publish`."""
        await self._publisher.publish(messages)

    async def waiting(self, stream: str, solution: str, *, durable: str) -> int:
        """Count the messages of a solution that the consumer `durable` has still to acknowledge; all of them when it does not exist yet."""
        try:
            information = await self.jetstream.consumer_info(stream, durable)
        except jetstream_errors.NotFoundError:
            state = (await self.jetstream.stream_info(stream, subjects_filter=subject(stream, solution))).state
            return sum((state.subjects or {}).values())
        return int(information.num_pending or 0) + int(information.num_ack_pending or 0)

    async def last_number(self, stream: str) -> int:
        """The number of the newest message that `stream` was ever given."""
        return int((await self.jetstream.stream_info(stream)).state.last_seq)

    async def make_room(self, stream: str, solution: str, *, durable: str) -> None:
        """Remove the messages of a solution that the consumer `durable` has acknowledged, once `stream` is more than half full."""
        information = await self.jetstream.stream_info(stream)
        if information.state.bytes * 2 > (information.config.max_bytes or 0):
            floor = (await self.jetstream.consumer_info(stream, durable)).ack_floor
            if floor is not None and floor.stream_seq:
                await self.jetstream.purge_stream(stream, subject=subject(stream, solution), seq=floor.stream_seq + 1)


@asynccontextmanager
async def connect(url: str, *, name: str, stopping: asyncio.Event | None) -> AsyncIterator[EventStream]:
    """A connection for the time of the `async with` block; the streams exist then, with the limits of this version.

    With `stopping` it waits for a server until that is set (StoppedError), and comes back whenever the server does. Without, it is
    made once: EventStreamError is raised when there is no server, and it ends with the server.
    """
    import nats

    replicas = stream_replicas(url)
    # The address holds a password.
    address = _without_user(url)
    reported: set[str] = set()

    async def report(error: Exception) -> None:
        # Every attempt fails the same way: once is enough until the server is back.
        text = f"{error or type(error).__name__}"
        if text not in reported:
            reported.add(text)
            _log.warning("Event stream at %s: %s", address, text)

    async def report_back() -> None:
        reported.clear()
        _log.warning("Event stream at %s: back", address)

    connecting = asyncio.ensure_future(
        nats.connect(
            **connection_options(url),
            name=name,
            inbox_prefix=INBOX_PREFIX.encode(),
            allow_reconnect=stopping is not None,
            max_reconnect_attempts=-1 if stopping is not None else 1,
            reconnect_time_wait=_RECONNECT_SECONDS,
            connect_timeout=_WAIT_SECONDS,
            error_cb=report,
            reconnected_cb=report_back,
        )
    )
    try:
        if stopping is not None and not await done_before(connecting, stopping):
            raise StoppedError(f"Stopped while waiting for the event stream at {address}.")
        client = await connecting
    except (errors.Error, OSError) as error:
        raise EventStreamError(
            f"The event stream at {address} cannot be reached: {error or type(error).__name__}. "
            "`mlops up` starts it, `mlops status` shows it."
        ) from error
    try:
        stream = EventStream(client, replicas)
        await stream.open()
        while not await stream.create_streams():
            if stopping is None:
                raise EventStreamError(
                    f"JetStream at {address} does not create its streams; see the log of NATS: `mlops logs nats`."
                )
            if await wait_for(stopping, _RECONNECT_SECONDS):
                raise StoppedError(f"Stopped while waiting for JetStream at {address}.")
        yield stream
    finally:
        await client.close()


def connection_options(url: str) -> dict[str, Any]:
    """The arguments of `nats.connect` for an address, whose options are the platform's own.

    `tls_ca` is the file of the authorities that its certificate is verified by. With `tls_first=on` nothing is said before TLS: otherwise
    somebody on the way could say that the server has none, and would be given the password. Commas separate the servers of a cluster.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    tls: dict[str, Any] = {}
    if parts.scheme == "tls":
        logging.getLogger("asyncio").addFilter(_is_of_use)
        authorities = options.get("tls_ca")
        tls = {
            "tls": client_context(Path(authorities) if authorities else None),
            "tls_handshake_first": options.get("tls_first") == "on",
        }
    user, at, hosts = parts.netloc.rpartition("@")
    return {"servers": [f"{parts.scheme}://{user}{at}{host}" for host in hosts.split(",")], **tls}


def brief_connection_options(url: str) -> dict[str, Any]:
    """The arguments of `nats.connect` for one question to a server, which may be away: nats-py would try for two minutes.

    It fails after a second attempt, and does not come back once it is lost.
    """
    return {**connection_options(url), "allow_reconnect": False, "max_reconnect_attempts": 1}


def stream_replicas(url: str) -> int:
    """On how many servers of a cluster each stream is: the option `replicas` of an address. Raises EventStreamError for another number."""
    text = dict(parse_qsl(urlsplit(url).query)).get("replicas", "1")
    if text not in ("1", "3", "5"):
        raise EventStreamError(
            f"replicas={text} in MLOPS_NATS_URL is not 1, 3 or 5: of an even number, half may be lost, as of one less."
        )
    return int(text)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's log tells something. At the end of a connection of nats-py with TLS one does not."""
    return "eof_received() has no effect when using ssl" not in record.getMessage()


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
