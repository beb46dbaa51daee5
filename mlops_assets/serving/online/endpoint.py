"""`POST /<solution>/predict` as a plain ASGI application: token, size of the body, time and load, around the predictor.

In front of the web framework, which would cost several times what a prediction costs (docs/adr/0012-online-server.md).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from time import monotonic
from typing import Any

from mlops_assets.serving.online.metrics import Metrics
from mlops_assets.serving.online.predictor import Predictor
from mlops_assets.serving.online.problems import CONTENT_TYPE, ProblemError, retry_later
from mlops_assets.serving.online.token import is_authorized

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAXIMUM_BODY_BYTES = 1_000_000
MAXIMUM_IN_FLIGHT = 128
"""So many requests of one process are accepted and not yet answered; the next one is sent away."""
TIME_LIMIT_SECONDS = 5.0
"""From a request's arrival to its answer, the upload of its body included."""

_PREDICT = "/predict"
_log = logging.getLogger(__name__)


class _DisconnectedError(Exception):
    """The caller left before its request was complete."""


class PredictEndpoint:
    """Answers predictions; `draining`, it asks callers to connect anew, which leads them to another process."""

    def __init__(self, predictor: Predictor, token: str, metrics: Metrics):
        self.draining = False
        self._predictor, self._token, self._metrics = predictor, token, metrics
        self.in_flight = 0

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
        # A name that nobody serves comes from the caller: it must not become a series of its own.
        known = name if name in self._predictor.solutions else ""
        self._metrics.count_request(known, status.value, monotonic() - began)
        if self.draining:
            headers = [*headers, (b"connection", b"close")]
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status.value, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, name: str, scope: Scope, receive: Receive, began: float
    ) -> tuple[HTTPStatus, bytes, list[tuple[bytes, bytes]]]:
        try:
            self._check(scope)
            # Requests that arrived together are all counted before the first of them is answered.
            await asyncio.sleep(0)
            if self.in_flight > MAXIMUM_IN_FLIGHT:
                raise retry_later(HTTPStatus.TOO_MANY_REQUESTS, "The server is busy.")
            async with asyncio.timeout(TIME_LIMIT_SECONDS):
                body = await _read(receive)
            answer = await self._predictor.predict(name, body, began + TIME_LIMIT_SECONDS)
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

    def _check(self, scope: Scope) -> None:
        """Raise ProblemError for what the headers tell already."""
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        authorization = length = None
        for field, value in headers:
            if field == b"authorization":
                authorization = value.decode("latin-1")
            elif field == b"content-length":
                length = int(value)
        if not is_authorized(authorization, self._token):
            detail = "Give the token of this server: `Authorization: Bearer <token>`."
            raise ProblemError(HTTPStatus.UNAUTHORIZED, detail, {"www-authenticate": "Bearer"})
        if scope["method"] != "POST":
            raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "Predictions are asked for with POST.", {"allow": "POST"})
        if length is not None and length > MAXIMUM_BODY_BYTES:
            raise _too_large()


_CLOSE = {"connection": "close"}
"""What is left of the body would be read as the next request."""


async def _read(receive: Receive) -> bytes:
    """The body. Raises ProblemError (413) when it is too long."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        body += message.get("body", b"")
        if len(body) > MAXIMUM_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return body


def _too_large() -> ProblemError:
    detail = f"A body has at most {MAXIMUM_BODY_BYTES} bytes: send fewer rows at a time."
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, _CLOSE)


def _refusal(problem: ProblemError) -> tuple[HTTPStatus, bytes, list[tuple[bytes, bytes]]]:
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, problem.body(), [(b"content-type", CONTENT_TYPE.encode()), *headers]
