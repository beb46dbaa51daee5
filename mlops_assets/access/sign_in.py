"""Signing in by the OpenID provider, and out: the pages of a guard that lead a browser there and take it back.

The code flow with PKCE. What was asked is kept here for ten minutes, taken out by its answer, and bound to the browser by a cookie: an answer
that comes again, or in another browser, is none.
"""

import asyncio
import hmac
import logging
import secrets
import time
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, quote

from mlops_assets.access.audit import audited
from mlops_assets.access.credentials import access_token
from mlops_assets.access.exchange import Headers, Host, Receive, Scope, Send, answer, is_of_another_origin, refuse, show_page
from mlops_assets.access.openid import Provider, Question, SignInError, groups, person
from mlops_assets.access.person_sessions import PersonSessions, role_of
from mlops_assets.core.settings import Settings
from mlops_assets.core.sign_on import SignOn

SIGN_IN_PREFIX = "/.mlops/"
"""How the paths of these pages begin. No page of Dagster or MLflow does."""

_IN, _BACK, _OUT = (f"{SIGN_IN_PREFIX}{name}" for name in ("sign-in", "signed-in", "sign-out"))
_SECONDS = 600
_MOST_QUESTIONS = 10_000
"""So many are kept; then the oldest is forgotten: whoever has no session may ask."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asked:
    """A question that waits for its answer: the browser's cookie, the page that it wanted, until when."""

    question: Question
    browser: str
    page: str
    until: float


class SignIn:
    """The pages of one service. People who sign in get one of `sessions`; the audit log tells of it."""

    def __init__(self, name: str, sign_on: SignOn, sessions: PersonSessions, audit_log: Path):
        self._name, self._sign_on, self._sessions, self._audit_log = name, sign_on, sessions, audit_log
        self._provider = Provider(sign_on)
        self._asked: dict[str, _Asked] = {}

    def link(self, scope: Scope) -> str:
        """The address at which somebody signs in who wants the page of this request."""
        wanted = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        return f"{_IN}?to={quote(wanted + (f'?{query}' if query else ''), safe='')}"

    async def answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers, host: Host) -> None:
        """Answer a request for one of the pages."""
        path, method = scope["path"], scope["method"]
        parameters = {
            key: values[0] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items() if len(values) == 1
        }
        try:
            if (method, path) == ("GET", _IN):
                await self._lead_there(send, host, _own_page(parameters.get("to", "/")))
            elif (method, path) == ("GET", _BACK):
                await self._take_back(send, headers, host, parameters)
            elif (method, path) == ("GET", _OUT):
                form = f'<form method="post" action="{_OUT}"><button>Sign out</button></form>'
                await show_page(send, HTTPStatus.OK, f"Sign out of {self._name}", form)
            elif (method, path) == ("POST", _OUT):
                await self._sign_out(scope, send, headers, host)
            else:
                await refuse(scope, send, HTTPStatus.NOT_FOUND, "There is no such page.")
        except SignInError as error:
            _log.warning("Nobody was signed in: %s", error)
            again = f'<p>Nobody was signed in: {escape(str(error))}.</p><p><a href="{_IN}">Sign in again</a></p>'
            await show_page(send, HTTPStatus.FORBIDDEN, f"{self._name}: not signed in", again)

    async def _lead_there(self, send: Send, host: Host, page: str) -> None:
        question = await asyncio.to_thread(self._provider.ask, f"{host.origin.decode()}{_BACK}")
        browser = secrets.token_urlsafe(32)
        self._forget_old()
        self._asked[question.state] = _Asked(question, browser, page, time.monotonic() + _SECONDS)
        # Lax: a strict cookie would not come back with a browser that the provider sends here.
        cookie = host.cookie_header(_cookie(host), browser, seconds=_SECONDS, path=SIGN_IN_PREFIX, same_site="Lax")
        await answer(send, HTTPStatus.SEE_OTHER, b"", (b"location", question.address.encode()), cookie)

    async def _take_back(self, send: Send, headers: Headers, host: Host, parameters: dict[str, str]) -> None:
        asked = self._asked.pop(parameters.get("state", ""), None)
        browsers = headers.cookies(_cookie(host))
        if (
            asked is None
            or asked.until < time.monotonic()
            or not any(hmac.compare_digest(browser, asked.browser.encode()) for browser in browsers)
        ):
            raise SignInError("this answer fits no question of this browser, or was given before")
        if "error" in parameters:
            raise SignInError(f"the provider says {parameters['error']!r}: {parameters.get('error_description', '')!r}")
        # RFC 9207: a provider that tells who it is may not be another one.
        if parameters.get("iss", self._sign_on.issuer) != self._sign_on.issuer:
            raise SignInError("another provider answered")
        claims = await asyncio.to_thread(self._provider.claims, asked.question, parameters.get("code", ""))
        name, theirs = person(claims), groups(self._sign_on, claims)
        role = role_of(self._sign_on, theirs)
        if role is None:
            raise SignInError(f"{name} has none of the groups that have a role here")
        with audited(
            self._audit_log,
            actor=name,
            role=role,
            door=self._name,
            action="sign in",
            details={"groups": theirs},
            is_required=True,
        ):
            session, seconds = self._sessions.open(name, theirs)
        # A page, not a redirect: after one that another site began, a browser sends no strict cookie.
        await show_page(
            send,
            HTTPStatus.OK,
            f"{self._name}: signed in",
            f'<p>You are {escape(name)}, {role}. <a href="{escape(asked.page)}">Go on</a></p>',
            host.cookie_header(host.cookie, session, seconds=seconds),
            host.cookie_header(_cookie(host), "", seconds=0, path=SIGN_IN_PREFIX, same_site="Lax"),
            head=f'<meta http-equiv="refresh" content="0; url={escape(asked.page)}">',
        )

    async def _sign_out(self, scope: Scope, send: Send, headers: Headers, host: Host) -> None:
        if is_of_another_origin(scope, headers, host.origin):
            await refuse(scope, send, HTTPStatus.FORBIDDEN, "A page of another origin signs nobody out.")
            return
        for session in headers.cookies(host.cookie):
            if found := self._sessions.find(session):
                name, role = found
                with audited(
                    self._audit_log, actor=name, role=role, door=self._name, action="sign out", details={}, is_required=False
                ):
                    self._sessions.end(session)
        gone = host.cookie_header(host.cookie, "", seconds=0)
        await show_page(send, HTTPStatus.OK, f"{self._name}: signed out", f'<p><a href="{_IN}">Sign in again</a></p>', gone)

    def _forget_old(self) -> None:
        now = time.monotonic()
        # In the order in which they were asked.
        while self._asked and (len(self._asked) >= _MOST_QUESTIONS or next(iter(self._asked.values())).until < now):
            del self._asked[next(iter(self._asked))]


def signing_in(settings: Settings, service: str) -> tuple[PersonSessions | None, SignIn | None]:
    """The sessions and pages of a service; None where no provider is set. Raises StackError without the package that they need."""
    if settings.sign_on is None:
        return None, None
    sessions = PersonSessions(settings.sessions_directory, service, lambda: access_token(settings), settings.sign_on)
    return sessions, SignIn(service, settings.sign_on, sessions, settings.audit_log)


def _cookie(host: Host) -> str:
    return f"mlops_sign_in_{host.port}"


def _own_page(address: str) -> str:
    """The path and the query of an address, of this host alone: with two slashes of either kind it would name another one."""
    if any(ord(character) <= ord(" ") for character in address):
        return "/"
    return "/" + address.lstrip("/\\") if address.startswith("/") else "/"
