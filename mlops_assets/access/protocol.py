"""The first limits on a connection to a web application: the size and the time of a request's head."""

import asyncio
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlops_assets.access.tls import check_listening, server_options
from mlops_assets.core.listening import Listening

MAXIMUM_HEAD_BYTES = 64 << 10
"""About so long may the head of a request be: uvicorn's parser keeps what comes, however much."""

HEAD_SECONDS = 10.0
"""Within this time a head has to be complete, and on a new connection to begin."""


def serve(application: Any, listening: Listening, port: int) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT, without a log of addresses: they may hold a token.

    Raises StackError where it may not listen without TLS.
    """
    check_listening(listening)
    uvicorn.run(
        application,
        host=listening.address,
        port=port,
        http=LimitedProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Nobody reads the address of who asks, and the guard is told of a proxy by a setting.
        proxy_headers=False,
        **server_options(listening),
    )


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with these limits."""

    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Called by the event loop."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. Most heads come at once: these set no timer."""
        began_before = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        # What came with the end of the request before is not counted.
        self._head_bytes += len(data) if began_before else 0
        if self._head_bytes > MAXIMUM_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._stop_timer()
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
            self.transport.close()
