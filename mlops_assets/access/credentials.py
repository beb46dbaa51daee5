"""The secrets of an installation: random texts in files of the state folder that only their owner can read, made when first needed."""

import hmac
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

_SCHEME = b"bearer"

PLATFORM_ACCOUNT = "PLATFORM"
"""The account of NATS that holds the streams, and the name of their folder."""


def access_token(settings: Settings) -> str:
    """The token that opens Dagster and MLflow."""
    return ensure_secret(settings.access_token_file)


def serving_token(settings: Settings) -> str:
    """The token that callers of the online server give: `MLOPS_SERVING_TOKEN`, or a random one."""
    return settings.serving_token or ensure_secret(settings.serving_token_file)


@dataclass(frozen=True)
class EventStreamUser:
    """A user of the embedded event stream."""

    name: str
    password: str = field(repr=False)


def event_stream_platform(settings: Settings) -> EventStreamUser:
    """The user of the platform's processes, who may do everything."""
    return EventStreamUser("platform", ensure_secret(settings.nats_platform_password_file))


def event_stream_caller(settings: Settings) -> EventStreamUser:
    """The user of applications, who may publish requests and read predictions."""
    return EventStreamUser("caller", ensure_secret(settings.nats_caller_password_file))


def event_stream_system(settings: Settings) -> EventStreamUser:
    """The user of NATS's system account, who sees its health and no message."""
    return EventStreamUser("system", ensure_secret(settings.nats_system_password_file))


def event_stream_url(settings: Settings) -> str:
    """The address of the event stream with the platform's user; of one elsewhere `MLOPS_NATS_URL`, which names its own.

    One with TLS has options, which `connection_options` reads: the file of the authorities, and that the server begins with TLS.
    """
    return _event_stream_url(settings, event_stream_platform(settings) if settings.nats_url is None else None)


def event_stream_system_url(settings: Settings) -> str:
    """The address of the embedded event stream with the user of its system account."""
    return _event_stream_url(settings, event_stream_system(settings))


def _event_stream_url(settings: Settings, user: EventStreamUser | None) -> str:
    """The address, with `user` of the embedded event stream."""
    parts = urlsplit(settings.nats_server_url)
    options = {}
    if parts.scheme == "tls" and settings.listening.authorities:
        options["tls_ca"] = str(settings.listening.authorities)
    if user is not None:
        parts = parts._replace(netloc=f"{user.name}:{user.password}@{parts.netloc}")
        options |= {"tls_first": "on"} if parts.scheme == "tls" else {}
    return parts._replace(query="&".join(filter(None, [urlencode(options), parts.query]))).geturl()


def renew_access_token(settings: Settings) -> str:
    """Replace the token of Dagster and MLflow. The servers take the new one at their next request; links and sessions of before end."""
    scratch = _write(settings.access_token_file.parent, secrets.token_urlsafe(32))
    scratch.replace(settings.access_token_file)
    return access_token(settings)


def is_authorized(header: bytes | None, token: str) -> bool:
    """Whether the header `Authorization` holds the token; takes the same time wherever a wrong one differs."""
    given = bearer_token(header)
    return given is not None and hmac.compare_digest(given, token.encode())


def bearer_token(header: bytes | None) -> bytes | None:
    """The token in the header `Authorization`, None where there is none."""
    scheme, _, credentials = (header or b"").partition(b" ")
    return credentials.strip() if scheme.lower() == _SCHEME else None


def authorization(token: str) -> dict[str, str]:
    """The header that gives the token."""
    return {"Authorization": f"Bearer {token}"}


def ensure_secret(path: Path) -> str:
    """The secret in the file `path`, the same for all processes that ask at once."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = _write(path.parent, secrets.token_urlsafe(32))
        try:
            path.hardlink_to(scratch)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    if not (secret := path.read_text().strip()):
        raise StackError(
            f"There is no secret in {path}.", remedy="Restore the file from a backup, or delete it: a new secret is made."
        )
    return secret


def _write(directory: Path, secret: str) -> Path:
    """Write a secret to a file of its own, complete when it gets its name, and readable by the owner alone."""
    file, scratch = tempfile.mkstemp(dir=directory, prefix=".secret.")
    with os.fdopen(file, "w") as text:
        text.write(secret + "\n")
        text.flush()
        # An empty file, after a power failure, would be a secret that everybody knows.
        os.fsync(file)
    return Path(scratch)
