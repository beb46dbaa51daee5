"""TLS between the platform's own clients and real servers: the event stream, Postgres, the online server."""

import http.client
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import nats as nats_library
import psycopg2
import pytest
from certificates import Authority
from cryptography import x509
from nats_server import NatsServer
from online_server import OnlineServer, flights, load
from prediction_records import prediction_record
from waiting import wait_for

from mlops_assets.access.credentials import event_stream_caller, event_stream_url
from mlops_assets.access.tls import client_context
from mlops_assets.clients.event_stream import PREDICTIONS, EventStream, subject
from mlops_assets.clients.publishing import EventStreamError, Message
from mlops_assets.clients.stream_snapshots import last_numbers
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, Settings
from mlops_assets.serving.prediction_record import encode_record


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def shown_number(connection: ssl.SSLSocket | ssl.SSLObject) -> int:
    certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def test_the_event_stream_speaks_tls_from_the_first_byte_and_takes_a_renewed_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    server = NatsServer(tmp_path / "nats", authority.listening())
    server.start()
    try:
        numbers = []

        async def publish_under_renewal(stream: EventStream) -> None:
            def shown() -> int:
                return shown_number(stream.client._transport._io_writer.get_extra_info("ssl_object"))

            record = encode_record(prediction_record(1))
            await stream.publish([Message(subject(PREDICTIONS, "late"), "1", record)])
            numbers.append(shown())
            numbers.append(authority.issue("server", "127.0.0.1")[2])
            server.signal(signal.SIGHUP)
            # The connection goes on.
            await stream.publish([Message(subject(PREDICTIONS, "late"), "2", record)])

        server.run(publish_under_renewal)

        async def shown(stream: EventStream) -> int:
            return shown_number(stream.client._transport._io_writer.get_extra_info("ssl_object"))

        wait_for(lambda: server.run(shown) == numbers[1])
        assert numbers[0] != numbers[1]
        assert last_numbers(server.url)[PREDICTIONS] == 2

        # An application needs no more than the certificate of the authority.
        async def ask(_: EventStream) -> str:
            caller = event_stream_caller(server.settings)
            client = await nats_library.connect(
                server.settings.nats_server_url,
                user=caller.name,
                password=caller.password,
                tls=client_context(authority.path),
            )
            await client.flush()
            version = str(client.connected_server_version)
            await client.close()
            return version

        assert server.run(ask)
        stranger = replace(server.settings.listening, authorities=Authority(tmp_path / "other").path)
        with pytest.raises(EventStreamError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
            last_numbers(event_stream_url(replace(server.settings, listening=stranger)))
    finally:
        server.kill()


def test_no_password_is_given_to_an_event_stream_that_says_it_has_no_tls(authority: Authority, tmp_path: Path) -> None:
    """Somebody on the way, who speaks as a server without TLS would."""
    received = []

    def pretend(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    connection.sendall(
                        b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"auth_required":true}\r\n'
                    )
                    received.append(connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=pretend, args=[listener], daemon=True).start()
        settings = Settings(home=tmp_path / "home", listening=authority.listening(), nats_port=listener.getsockname()[1])
        with pytest.raises(EventStreamError):
            last_numbers(event_stream_url(settings))
        wait_for(lambda: bool(received))
        listener.shutdown(socket.SHUT_RDWR)
    assert not any(b"CONNECT" in data or b"pass" in data for data in received)


_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@contextmanager
def postgres_with_tls(directory: Path, authority: Authority) -> Iterator[int]:
    """A port on which the Postgres of a socket answers by TLS alone, as one that was built with it does; yields the port."""
    certificate, key, _ = authority.issue("postgres", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def answer(plain: socket.socket) -> None:
        with suppress(OSError), plain:
            if plain.recv(8) != _SSL_REQUEST:
                return
            plain.sendall(b"S")
            with context.wrap_socket(plain, server_side=True) as client, socket.socket(socket.AF_UNIX) as server:
                server.connect(str(directory / ".s.PGSQL.5432"))
                back = threading.Thread(target=copy, args=[server, client])
                back.start()
                copy(client, server)
                back.join()

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_postgres_is_verified_by_every_client(postgres_directory: Path, authority: Authority, tmp_path: Path) -> None:
    with postgres_with_tls(postgres_directory, authority) as port:
        # This machine by a name that is not one of loopback, as libpq has it.
        other = f"postgresql://postgres@localhost:{port}/postgres?sslmode=verify-full&sslrootcert="
        for authorities, is_trusted in ((authority.path, True), (Authority(tmp_path / "other").path, False)):
            settings = Settings(home=tmp_path, postgres_url=f"{other}{authorities}")
            string = settings.postgres_connection_string("postgres")
            with duckdb.connect(config={"extension_directory": str(DUCKDB_EXTENSION_DIRECTORY)}) as database:
                attach = f"LOAD postgres_scanner; ATTACH '{string}' AS pg (TYPE postgres)"
                if is_trusted:
                    with psycopg2.connect(string) as connection, connection.cursor() as cursor:
                        cursor.execute("SELECT 1")
                    connection.close()
                    database.execute(attach)
                    assert database.execute("SELECT * FROM postgres_query('pg', 'SELECT 7')").fetchall() == [(7,)]
                    database.execute("DETACH pg")
                    continue
                with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
                    psycopg2.connect(string)
                with pytest.raises(duckdb.Error, match="certificate verify failed"):
                    database.execute(attach)


def test_a_renewed_certificate_of_the_online_server_costs_no_request(authority: Authority, tmp_path: Path) -> None:
    listening = authority.listening()
    with OnlineServer(tmp_path / "home", flights(1), processes=2, listening=listening) as server:
        port = server.settings.serving_port

        def shown() -> int:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=client_context(authority.path), timeout=10)
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            number = shown_number(connection.sock)
            connection.close()
            return number

        server.promote(1)
        wait_for(lambda: server.versions() == {1})
        with load(server, callers=2) as asked:
            wait_for(lambda: asked.answered > 20)
            number = authority.issue("server", "127.0.0.1")[2]
            # Whichever of the two processes answers.
            assert {shown() for _ in range(10)} == {number}
            before = asked.answered
            wait_for(lambda: asked.answered > before + 20)
        assert (asked.errors, set(asked.statuses)) == ([], {200})
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with suppress(ConnectionError):
                assert not plain.recv(100).startswith(b"HTTP/")
