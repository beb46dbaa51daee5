"""TLS at the doors: the certificate that the servers show, taken anew when it was renewed, and what the platform's clients verify it by."""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.core.listening import Listening

_log = logging.getLogger(__name__)


def client_context(authorities: Path | None) -> ssl.SSLContext:
    """What a client verifies a server by: the authorities in the file, or those of the system. Raises OSError for a file that is none."""
    return ssl.create_default_context(cafile=authorities)


def verification(listening: Listening) -> str | bool:
    """The same, as `requests` takes it."""
    return str(listening.authorities) if listening.authorities else True


def server_context(listening: Listening) -> ssl.SSLContext:
    """The context of a server, which shows the newest certificate to every new connection. Those that are open go on.

    Raises OSError when the files cannot be read, or do not belong together.
    """
    assert listening.certificate is not None
    assert listening.key is not None
    renewed = _RenewedCertificate(listening.certificate, listening.key)
    context = renewed.context
    # Called at the beginning of every handshake, with or without a name.
    context.sni_callback = renewed
    return context


def server_options(listening: Listening) -> dict[str, Any]:
    """The arguments of uvicorn for the context; none without TLS."""
    return {"ssl_context_factory": _UvicornContext(listening)} if listening.has_tls else {}


class _UvicornContext:
    """Makes the context in the process that answers: it cannot be given to another one."""

    def __init__(self, listening: Listening):
        self._listening = listening

    def __call__(self, config: object, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        return server_context(self._listening)


class _RenewedCertificate:
    """The context of the files as they are now. One that cannot be used changes nothing: the one before goes on."""

    def __init__(self, certificate: Path, key: Path):
        self._certificate, self._key = certificate, key
        self._seen = self._identity()
        self.context = self._load()

    def __call__(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self._refresh()
        connection.context = self.context

    def _refresh(self) -> None:
        try:
            seen = self._identity()
            if seen == self._seen:
                return
            # The second file may come later than the first one: then this fails, and is tried again when it is there.
            self._seen = seen
            self.context = self._load()
        except OSError as error:
            _log.error("The certificate in %s cannot be used, the one before is: %s", self._certificate, error)
        else:
            _log.warning("The certificate in %s was renewed.", self._certificate)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate, self._key)
        return context

    def _identity(self) -> list[tuple[int, int, int]]:
        status = [path.stat() for path in (self._certificate, self._key)]
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in status]


def check_listening(listening: Listening) -> None:
    """Raise StackError where servers would speak to other machines without TLS, or with a certificate that clients do not believe."""
    if not listening.has_tls:
        if not listening.is_on_loopback and not listening.is_behind_proxy:
            raise StackError(
                f"The servers would listen on {listening.address} without TLS: everybody on the way could read tokens and predictions.",
                remedy="Name a certificate: MLOPS_TLS_CERTIFICATE and MLOPS_TLS_KEY. Where a proxy in front ends TLS: MLOPS_TLS_PROXY=on",
            )
        return
    try:
        context = server_context(listening)
    except OSError as error:
        raise StackError(
            f"The certificate {listening.certificate} with the key {listening.key} cannot be used: {error.strerror or error}.",
            remedy="Name a certificate with its chain and its key in PEM form, which the user of the servers can read.",
        ) from error
    try:
        client = client_context(listening.authorities)
    except OSError as error:
        raise StackError(
            f"The authorities in {listening.authorities} cannot be read: {error.strerror or error}.",
            remedy="Set MLOPS_TLS_CA to a file of certificates in PEM form, or unset it for those that the system trusts.",
        ) from error
    try:
        _shake_hands(context, client, listening.host)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or str(error)
        raise StackError(
            f"The platform's own processes would not believe the certificate {listening.certificate} of {listening.host}: {reason}.",
            remedy="Name the authority that issued it in MLOPS_TLS_CA, and a host that it is for in MLOPS_SERVER_NAMES.",
        ) from error


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """Let a client and a server meet in memory. Raises SSLError when the client would refuse."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
