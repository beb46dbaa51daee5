"""Sessions of people who signed in by the OpenID provider: a file each, so that one can be ended."""

import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mlops_assets.access.callers import Role
from mlops_assets.core.sign_on import SignOn

_SESSION = re.compile(rb"p\.[A-Za-z0-9_-]{43}")


class _Stored(msgspec.Struct, frozen=True):
    """The content of a file: who, of which groups, until when (Unix time)."""

    name: str
    groups: list[str]
    until: float


class PersonSessions:
    """The sessions of one service in the folder `directory`.

    What the browser keeps is random; its file is named by an HMAC under the owner's token, as the sessions of tokens are: a new token of
    the owner ends all, and who reads the names of the files can open nothing with them. The role is looked up in the settings each time.
    """

    def __init__(self, directory: Path, service: str, owner: Callable[[], str], sign_on: SignOn):
        self._directory, self._service, self._owner, self._sign_on = directory, service, owner, sign_on

    def open(self, name: str, groups: Sequence[str]) -> tuple[str, int]:
        """Begin a session. Returns what the browser keeps, and for how many seconds. Those that have ended are removed."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_ended()
        session, seconds = f"p.{secrets.token_urlsafe(32)}", self._sign_on.session_hours * 3600
        stored = _Stored(name, list(groups), time.time() + seconds)
        file, scratch = tempfile.mkstemp(dir=self._directory, prefix=".session.")
        with os.fdopen(file, "w") as text:
            json.dump(msgspec.to_builtins(stored), text)
        Path(scratch).replace(self._path(session.encode()))
        return session, seconds

    def find(self, session: bytes) -> tuple[str, Role] | None:
        """Whose session it is and what they may do, None for none that goes on."""
        if not _SESSION.fullmatch(session) or (stored := _read(self._path(session))) is None or stored.until <= time.time():
            return None
        role = role_of(self._sign_on, stored.groups)
        return (stored.name, role) if role else None

    def end(self, session: bytes) -> None:
        """End a session, if it is one."""
        if _SESSION.fullmatch(session):
            self._path(session).unlink(missing_ok=True)

    def _remove_ended(self) -> None:
        for path in self._directory.glob("[!.]*"):
            stored = _read(path)
            if stored is None or stored.until <= time.time():
                path.unlink(missing_ok=True)

    def _path(self, session: bytes) -> Path:
        of = f"session of {self._service} of a person ".encode() + session
        return self._directory / hmac.new(self._owner().encode(), of, "sha256").hexdigest()


def role_of(sign_on: SignOn, groups: Sequence[str]) -> Role | None:
    """The role of somebody of these groups, None without one."""
    if set(groups) & set(sign_on.operators):
        return "operator"
    return "viewer" if set(groups) & set(sign_on.viewers) else None


def _read(path: Path) -> _Stored | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Stored)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
