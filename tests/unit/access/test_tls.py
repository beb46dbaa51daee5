"""Certificates that the doors refuse to open with, and one that is renewed under connections."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
import uvicorn
from certificates import Authority
from cryptography import x509

from mlops_assets.access.guard import Receive, Scope, Send
from mlops_assets.access.tls import check_listening, client_context, server_options, verification
from mlops_assets.core.errors import StackError
from mlops_assets.core.listening import Listening


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def test_another_address_than_loopback_needs_tls(authority: Authority) -> None:
    for address in ("0.0.0.0", "::", "10.0.0.5"):
        with pytest.raises(StackError, match="without TLS") as refused:
            check_listening(Listening(address=address))
        assert "MLOPS_TLS_PROXY" in refused.value.remedy
        check_listening(Listening(address=address, is_behind_proxy=True))
    check_listening(Listening())
    check_listening(replace(authority.listening("all", "10.0.0.5"), address="10.0.0.5"))
    check_listening(replace(authority.listening("all", "a.example"), address="0.0.0.0", names=("a.example",)))


def test_a_certificate_that_clients_would_not_believe_is_refused_before_servers_start(
    authority: Authority, tmp_path: Path
) -> None:
    good = authority.listening()
    late, key, _ = authority.issue("late", "127.0.0.1", until=datetime.now(UTC) - timedelta(hours=1))
    (tmp_path / "text.pem").write_text("no certificate")
    for listening, reason in [
        (replace(good, authorities=Authority(tmp_path / "other").path), "unable to get local issuer certificate"),
        (replace(good, authorities=None), "unable to get local issuer certificate"),
        (replace(good, certificate=late, key=key), "certificate has expired"),
        (replace(good, names=("mlops.example.org",)), "not valid for 'mlops.example.org'"),
        (replace(good, key=key), "(?i)mismatch"),
        (replace(good, certificate=tmp_path / "missing"), "No such file"),
        (replace(good, certificate=tmp_path / "text.pem"), "cannot be used"),
        (replace(good, authorities=tmp_path / "missing"), "No such file"),
        (replace(good, authorities=tmp_path / "text.pem"), "cannot be read"),
    ]:
        with pytest.raises(StackError, match=reason) as refused:
            check_listening(listening)
        assert refused.value.remedy


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def serving(listening: Listening) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, log_level="error", lifespan="off", **server_options(listening))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def shown_number(port: int, listening: Listening) -> int:
    """The number of the certificate that a new connection is shown."""
    context = client_context(listening.authorities)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number


def ask(connection: http.client.HTTPSConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def test_a_renewed_certificate_is_shown_to_new_connections_while_open_ones_go_on(authority: Authority) -> None:
    listening = authority.listening()
    with serving(listening) as port:
        first = shown_number(port, listening)
        kept = http.client.HTTPSConnection("127.0.0.1", port, context=client_context(listening.authorities), timeout=10)
        assert ask(kept) == b"ok"
        assert kept.sock is not None
        same = kept.sock
        _, _, second = authority.issue("server", "127.0.0.1")
        assert shown_number(port, listening) == second != first
        assert (ask(kept), kept.sock) == (b"ok", same)
        # One that cannot be used, as between the replacement of the certificate and that of its key.
        assert listening.certificate is not None
        assert listening.key is not None
        key = listening.key.read_bytes()
        _, _, third = authority.issue("server", "127.0.0.1")
        renewed = listening.key.read_bytes()
        listening.key.write_bytes(key)
        assert shown_number(port, listening) == second
        listening.key.unlink()
        assert shown_number(port, listening) == second
        listening.key.write_bytes(renewed)
        assert shown_number(port, listening) == third
        kept.close()


def test_clients_refuse_a_server_of_another_authority_and_one_without_tls(authority: Authority, tmp_path: Path) -> None:
    listening = authority.listening()
    stranger = replace(listening, authorities=Authority(tmp_path / "other").path)
    with serving(listening) as port:
        address = f"https://127.0.0.1:{port}"
        assert requests.get(address, verify=verification(listening), timeout=10).text == "ok"
        for distrustful in (verification(stranger), verification(Listening())):
            with pytest.raises(requests.exceptions.SSLError):
                requests.get(address, verify=distrustful, timeout=10)
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}", timeout=10)
        with pytest.raises(ssl.SSLError):
            shown_number(port, stranger)
