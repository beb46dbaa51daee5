"""The address of a Postgres as its clients read it. Errors and configurations quote it: its password is in a file for libpq instead."""

import os
import tempfile
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit


def connection_string(url: str, database: str, password_file: Path, authorities: Path | None) -> str:
    """The libpq keyword string of `database` on the server at `url`, as psycopg2 and DuckDB take it."""
    parts = urlsplit(url)
    return keywords(
        {
            "dbname": database,
            "user": unquote(parts.username or ""),
            "host": unquote(parts.hostname or ""),
            "port": str(parts.port or ""),
            **_options(url, password_file, authorities),
        }
    )


def keywords(parts: Mapping[str, str]) -> str:
    """The libpq keyword string of `parts`, without those that are empty."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in parts.items() if value)


def sqlalchemy_address(url: str, database: str, password_file: Path, authorities: Path | None) -> str:
    """The SQLAlchemy URL of `database` on the server at `url`."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}@{host}" if user else host
    options = urlencode(_options(url, password_file, authorities), quote_via=quote)
    return parts._replace(scheme="postgresql+psycopg2", netloc=netloc, path=f"/{database}", query=options).geturl()


def _options(url: str, password_file: Path, authorities: Path | None) -> dict[str, str]:
    """The options of `url`, with the file of its password, which is written, in place of the password.

    With `authorities`, the certificate of a server on another machine is verified, unless the address says otherwise.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    password = options.pop("password", None) or unquote(parts.password or "")
    if authorities and "sslmode" not in options and _is_elsewhere(parts.hostname or options.get("host", "")):
        options |= {"sslmode": "verify-full", "sslrootcert": str(authorities)}
    return options | ({"passfile": str(keep_password(password_file, password))} if password else {})


def _is_elsewhere(host: str) -> bool:
    """Whether a host, as libpq takes it, is another machine: neither loopback nor a Unix socket."""
    if not host or unquote(host).startswith("/"):
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _quoted(value: str) -> str:
    """`value` quoted as libpq reads it, where it has to be."""
    if not any(character.isspace() or character in "'\\" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def keep_password(path: Path, password: str) -> Path:
    """Keep `password` for every server and user in the file `path`, readable by the owner alone. Return the path."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    line = f"*:*:*:*:{escaped}\n"
    if path.exists() and path.read_text() == line:
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Complete when it gets its name: others connect meanwhile.
    file, scratch = tempfile.mkstemp(dir=path.parent, prefix=".password.")
    with os.fdopen(file, "w") as text:
        text.write(line)
    Path(scratch).replace(path)
    return path
