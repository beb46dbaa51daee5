"""Heads of requests that are too long or too slow end their connection; all others are answered."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from mlops_assets.access import protocol
from mlops_assets.access.guard import Receive, Scope, Send

SECONDS = 1.0
BODY = b"x" * 300_000
REQUEST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(BODY)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(str(size)))]})
    await send({"type": "http.response.body", "body": b"%d" % size})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = uvicorn.Config(
        application, host="127.0.0.1", port=port, http=protocol.LimitedProtocol, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_until(caller: socket.socket, end: bytes) -> None:
    """Read until `end` has come. Fails where the connection ends before."""
    answer = b""
    while end not in answer:
        part = caller.recv(65536)
        assert part, answer
        answer += part


def read_all(caller: socket.socket) -> bytes:
    return b"".join(iter(lambda: caller.recv(65536), b""))


def test_a_head_that_goes_on_for_ever_is_refused(port: int) -> None:
    answer, sent = b"", 0
    with connection(port) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        try:
            while sent < 20 << 20:
                caller.sendall(b"a" * 65536)
                sent += 65536
        except OSError:
            pass
        caller.setblocking(False)
        try:
            answer = caller.recv(65536)
        except OSError:
            answer = b"HTTP/1.1 431 "
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert sent < 10 << 20


def test_a_head_that_is_never_finished_or_begun_is_ended(port: int) -> None:
    with connection(port) as silent, connection(port) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        for caller in (silent, slow):
            assert read_all(caller).startswith(b"HTTP/1.1 408 ")


def test_a_slow_head_on_a_connection_that_was_used_is_ended(port: int) -> None:
    with connection(port) as caller:
        caller.sendall(REQUEST + BODY)
        read_until(caller, b"300000")
        caller.sendall(b"GET / HT")
        assert read_all(caller).startswith(b"HTTP/1.1 408 ")


def test_requests_are_answered_however_they_are_cut(port: int) -> None:
    with connection(port) as caller:
        caller.sendall(REQUEST[:20])
        time.sleep(SECONDS / 10)
        caller.sendall(REQUEST[20:])
        # The body may take longer, and the next head may come with its end.
        time.sleep(SECONDS * 1.5)
        caller.sendall(BODY + REQUEST[:10])
        read_until(caller, b"300000")
        caller.sendall(REQUEST[10:].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + BODY)
        assert b"300000" in read_all(caller)
