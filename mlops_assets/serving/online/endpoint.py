"""`POST /<solution>/predict` as a plain ASGI application: token, size of the body, time and load, around the predictor.

In front of the web framework, which would cost several times what a prediction costs (docs/adr/0012-online-server.md).
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from http import HTTPStatus
from time import monotonic
from typing import Any

from mlops_assets.access.admission import Admission
from mlops_assets.access.credentials import is_authorized
from mlops_assets.serving.online.metrics import Metrics
from mlops_assets.serving.online.predictor import Predictor
from mlops_assets.serving.online.problems import CONTENT_TYPE, ProblemError, retry_later

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAXIMUM_BODY_BYTES = 1_000_000
MAXIMUM_IN_FLIGHT = 128
"""So many requests of one process are accepted and not yet answered; the next one is sent away."""
TIME_LIMIT_SECONDS = 5.0
"""From a request's arrival to its answer, the upload of its body included. Workers have the limit of their solution."""

_PREDICT = "/predict"
_log = logging.getLogger(__name__)


class _DisconnectedError(Exception):
    """The caller left before its request was complete."""


class PredictEndpoint:
    """Answers predictions; `draining`, it asks callers to connect anew, which leads them to another process."""

    def __init__(self, predictor: Predictor, token: str, admission: Admission, metrics: Metrics):
        self.draining = False
        self._predictor, self._token, self._admission, self._metrics = predictor, token, admission, metrics
        self._uploads = _Uploads()
        self.in_flight = 0
        self.tasks: Collection[object] = ()
        """uvicorn's tasks, one for each request that has arrived and has no answer; without uvicorn nobody knows."""

    @staticmethod
    def serves(path: str) -> bool:
        """Whether the path is one of this endpoint."""
        return path.endswith(_PREDICT) and path.count("/") == 2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = monotonic()
        name = scope["path"][1 : -len(_PREDICT)]
        self.in_flight += 1
        try:
            status, body, headers = await self._answer(name, scope, receive, began)
        except _DisconnectedError:
            return
        finally:
            self.in_flight -= 1
        if self.draining:
            headers = [*headers, (b"connection", b"close")]
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": int(status), "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})
        # A name that nobody serves comes from the caller: it must not become a series of its own.
        known = name if name in self._predictor.solutions else ""
        # The answer is sent when the event loop gets its turn: the caller need not wait for the metrics.
        asyncio.get_running_loop().call_soon(self._metrics.count_request, known, status, monotonic() - began)

    async def _answer(
        self, name: str, scope: Scope, receive: Receive, began: float
    ) -> tuple[HTTPStatus, bytes, list[tuple[bytes, bytes]]]:
        try:
            caller = self._check(name, scope)
            # Requests that arrived together are all counted here before the first of them is answered.
            if self.in_flight > MAXIMUM_IN_FLIGHT:
                raise retry_later(HTTPStatus.TOO_MANY_REQUESTS, "The server is busy.")
            body = await self._uploads.read(receive, began + TIME_LIMIT_SECONDS)
            deadline, alone = began + TIME_LIMIT_SECONDS, len(self.tasks) == 1
            answer = await self._predictor.predict(name, body, deadline, began=began, alone=alone, caller=caller)
        except ProblemError as problem:
            return _refusal(problem)
        except TimeoutError:
            return _refusal(ProblemError(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time.", _CLOSE))
        except _DisconnectedError:
            raise
        except Exception:
            _log.exception("A request for %s failed", name)
            return _refusal(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says why.", {}))
        return HTTPStatus.OK, answer, [(b"content-type", b"application/json")]

    def _check(self, name: str, scope: Scope) -> str | None:
        """The caller whose token it is, None for the operator's. Raises ProblemError for what the headers tell already."""
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        authorization = length = None
        for field, value in headers:
            if field == b"authorization":
                authorization = value
            elif field == b"content-length":
                length = int(value)
        caller = None if is_authorized(authorization, self._token) else self._admit(name, authorization)
        if scope["method"] != "POST":
            raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "Predictions are asked for with POST.", {"allow": "POST"})
        if length is not None and length > MAXIMUM_BODY_BYTES:
            raise _too_large()
        return caller

    def _admit(self, name: str, authorization: bytes | None) -> str:
        """The caller whose token it is. Raises ProblemError unless there is one who may ask the solution, and not too often."""
        admitted = self._admission.find(authorization)
        if admitted is None:
            detail = "Give the token of this server: `Authorization: Bearer <token>`."
            raise ProblemError(HTTPStatus.UNAUTHORIZED, detail, {"www-authenticate": "Bearer"})
        caller = admitted.caller
        if not caller.may_ask(name):
            # The same for a solution that there is not: who may not ask learns nothing of it.
            self._count(caller.name, "forbidden")
            raise ProblemError(HTTPStatus.FORBIDDEN, f"The caller {caller.name} may not ask {name!r}.", {})
        if admitted.limit is not None and (wait := admitted.limit.take()):
            self._count(caller.name, "limited")
            detail = f"The caller {caller.name} has {caller.requests_per_second:g} requests a second, {caller.burst} at once."
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, detail, {"retry-after": str(math.ceil(wait))})
        self._count(caller.name, "admitted")
        return caller.name

    def _count(self, caller: str, outcome: str) -> None:
        asyncio.get_running_loop().call_soon(self._metrics.count_caller, caller, outcome)


_CLOSE = {"connection": "close"}
"""What is left of the body would be read as the next request."""


class _Uploads:
    """The bodies that are on their way. One timer ends all that take too long: one for each would be a twentieth of a request."""

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, deadline: float) -> bytes:
        """The body. Raises TimeoutError soon after `deadline`, ProblemError (413) when it is too long, and _DisconnectedError."""
        task = asyncio.current_task()
        assert task is not None  # uvicorn runs every request as a task
        self._deadlines[task] = deadline
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TIME_LIMIT_SECONDS / 5, self._end_late)
        body = b""
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _DisconnectedError
                body += message.get("body", b"")
                if len(body) > MAXIMUM_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body", False):
                    return body
        except asyncio.CancelledError as error:
            if task not in self._late:
                raise
            task.uncancel()
            raise TimeoutError from error
        finally:
            del self._deadlines[task]
            self._late.discard(task)

    def _end_late(self) -> None:
        self._timer = None
        late = {task for task, deadline in self._deadlines.items() if monotonic() > deadline}
        for task in late - self._late:
            task.cancel()
        self._late |= late
        if self._deadlines:
            self._timer = asyncio.get_running_loop().call_later(TIME_LIMIT_SECONDS / 5, self._end_late)


def _too_large() -> ProblemError:
    detail = f"A body has at most {MAXIMUM_BODY_BYTES} bytes: send fewer rows at a time."
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, _CLOSE)


def _refusal(problem: ProblemError) -> tuple[HTTPStatus, bytes, list[tuple[bytes, bytes]]]:
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, problem.body(), [(b"content-type", CONTENT_TYPE.encode()), *headers]
