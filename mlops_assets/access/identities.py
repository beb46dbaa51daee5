"""Persons at the doors of Dagster and MLflow: the owner with the token of the installation, and those who were added with one of their own."""

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mlops_assets.access.callers import Caller, Role, hash_token, read_callers
from mlops_assets.access.credentials import access_token
from mlops_assets.access.person_sessions import PersonSessions
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

_log = logging.getLogger(__name__)

IDENTITY = "mlops.identity"
"""The key of a request's scope under which a guard tells the application who asks."""


@dataclass(frozen=True)
class Identity:
    """Somebody whom a guard let in. The owner's token is that of the platform's own processes, too."""

    name: str
    role: Role
    has_session: bool


class Identities:
    """Who is let in, and by which session. `owner` returns the token that opens everything; `persons` returns who else may come in,
    `signed_in` are those that the OpenID provider knows.

    A session is an HMAC under the owner's token, so that what is kept of other tokens makes none.
    """

    def __init__(
        self, service: str, owner: Callable[[], str], persons: Callable[[], list[Caller]], signed_in: PersonSessions | None = None
    ):
        self._service, self._owner, self._persons, self._signed_in = service, owner, persons, signed_in

    def of_token(self, token: bytes) -> Identity | None:
        """Whose token it is. Takes the same time wherever a wrong one differs."""
        if hmac.compare_digest(token, self._owner().encode()):
            return Identity("owner", "operator", has_session=False)
        try:
            digest = hash_token(token.decode())
        except UnicodeDecodeError:
            return None
        return next(
            (Identity(name, role, False) for name, role, known in self._tokens() if hmac.compare_digest(known, digest)), None
        )

    def of_session(self, session: bytes) -> Identity | None:
        """Whose session it is."""
        if hmac.compare_digest(session, self._session(None).encode()):
            return Identity("owner", "operator", has_session=True)
        if self._signed_in and (found := self._signed_in.find(session)):
            return Identity(*found, has_session=True)
        return next(
            (
                Identity(name, role, True)
                for name, role, digest in self._tokens()
                if hmac.compare_digest(session, self._session(digest).encode())
            ),
            None,
        )

    def session(self, token: bytes) -> str:
        """The content of the cookie for who gave this token: not the token, since it goes to every port of the host."""
        is_owners = hmac.compare_digest(token, self._owner().encode())
        return self._session(None if is_owners else hash_token(token.decode()))

    def _session(self, digest: str | None) -> str:
        whose = f" by {digest}" if digest else ""
        return hmac.new(self._owner().encode(), f"session of {self._service}{whose}".encode(), "sha256").hexdigest()

    def _tokens(self) -> list[tuple[str, Role, str]]:
        now = datetime.now(UTC)
        return [
            (person.name, person.role, token.sha256)
            for person in self._persons()
            if person.role != "caller"
            for token in person.tokens
            if token.is_valid(now)
        ]


def identities(settings: Settings, service: str, signed_in: PersonSessions | None) -> Identities:
    """The persons of this installation at `service`. Files are read at each request: a change needs no restart.

    A file of persons that cannot be read lets in nobody but the owner.
    """

    def persons() -> list[Caller]:
        try:
            return read_callers(settings.callers_file)
        except StackError as error:
            _log.error("Nobody but the owner is let in: %s", error.problem)
            return []

    return Identities(service, lambda: access_token(settings), persons, signed_in)
