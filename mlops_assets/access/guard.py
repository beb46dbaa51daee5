"""The guard before a web application: it admits a token, or the session that a token opened in a browser.

An ASGI application around another one. Whatever a web page elsewhere makes a browser send is refused: other names of this machine
(DNS rebinding), requests that another origin began (CSRF), frames.
"""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from mlops_assets.access.credentials import bearer_token
from mlops_assets.access.identities import IDENTITY, Identities, Identity
from mlops_assets.core.listening import Listening

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_PARAMETER = "token"  # noqa: S105 - its name, not a token
"""`?token=...` opens a session and leads to the same address without it."""

_SESSION_SECONDS = 30 * 24 * 60 * 60
_POLICY = (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store")


class AccessGuard:
    """The guard of one application.

    `name` is of the service and `identities` tell whom it opens to; the application finds who it is in the scope. `command` is what a person
    types to get in, `file` is the name of the file in the state folder in which a program finds the token.
    """

    def __init__(
        self, application: Application, *, name: str, identities: Identities, listening: Listening, command: str, file: str
    ):
        self._application = application
        self._name = name
        self._identities = identities
        self._hosts, self._names = _OwnHosts(listening), ", ".join(listening.own_names)
        self._command = command
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it. What is neither HTTP nor a WebSocket (the start and the end of a server) passes."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        headers = _Headers(scope)
        host = self._hosts.find(headers.get(b"host"))
        if host is None:
            await refuse(scope, send, HTTPStatus.FORBIDDEN, f"This server answers under its own names alone: {self._names}.")
            return
        token = bearer_token(headers.get(b"authorization"))
        identity = None if token is None else self._identities.of_token(token)
        if identity is not None:
            await self._admit(identity, scope, receive, send)
        elif TOKEN_PARAMETER in dict(parse_qsl(scope["query_string"].decode("latin-1"))):
            await self._open_session(scope, send, headers, host)
        elif (identity := self._identity_of_session(headers, host)) is None:
            await self._show_the_way(scope, send, headers)
        elif _is_of_another_origin(scope, headers, host.origin):
            await refuse(scope, send, HTTPStatus.FORBIDDEN, f"{self._name} takes nothing that a page of another origin sends.")
        else:
            await self._admit(identity, scope, receive, send)

    async def _admit(self, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        scope[IDENTITY] = identity
        await self._application(scope, receive, send)

    async def _open_session(self, scope: Scope, send: Send, headers: "_Headers", host: "_Host") -> None:
        """Exchange the token in the address for a cookie, and lead to the address without it."""
        parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = dict(parameters)[TOKEN_PARAMETER].encode()
        if scope["type"] != "http" or self._identities.of_token(token) is None:
            await self._show_the_way(scope, send, headers)
            return
        left = urlencode([(name, value) for name, value in parameters if name != TOKEN_PARAMETER])
        # The path as it was sent; two slashes at its beginning would name another host.
        path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/")
        cookie = f"{host.cookie}={self._identities.session(token)}; Path=/; Max-Age={_SESSION_SECONDS}; {host.cookie_attributes}"
        await _answer(
            send,
            HTTPStatus.SEE_OTHER,
            b"",
            (b"location", (path + (f"?{left}" if left else "")).encode("latin-1")),
            (b"set-cookie", cookie.encode()),
        )

    def _identity_of_session(self, headers: "_Headers", host: "_Host") -> Identity | None:
        pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie").decode("latin-1").split(";"))
        sessions = (self._identities.of_session(value.encode("latin-1")) for key, _, value in pairs if key == host.cookie)
        return next((identity for identity in sessions if identity is not None), None)

    async def _show_the_way(self, scope: Scope, send: Send, headers: "_Headers") -> None:
        """Say how to get in: a page for a browser, JSON for a program."""
        sentence = f"{self._name} opens with the link that `{self._command}` prints."
        if not _is_navigation(scope, headers):
            program = f"A program gives the token in the file {self._file} of the state folder: `Authorization: Bearer <token>`."
            await refuse(scope, send, HTTPStatus.UNAUTHORIZED, f"{sentence} {program}")
            return
        # A browser keeps a strict cookie back when a link elsewhere, as in a mail, leads here: asked again from here it sends it.
        again = _AGAIN if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") else ""
        page = _PAGE.format(name=escape(self._name), command=escape(self._command), again=again)
        kind = (b"content-type", b"text/html; charset=utf-8")
        await _answer(send, HTTPStatus.UNAUTHORIZED, page.encode(), kind, (b"x-frame-options", b"DENY"))


@dataclass(frozen=True)
class _Host:
    """The host of a request, one of the server's own: its port as the request has it, and the origin of its pages."""

    port: str
    origin: bytes

    @property
    def cookie(self) -> str:
        """The name of the session's cookie. Browsers keep one set of cookies for all ports of a host: the name tells them apart."""
        return f"mlops_session_{self.port}"

    @property
    def cookie_attributes(self) -> str:
        """Who gets the cookie."""
        secure = "; Secure" if self.origin.startswith(b"https:") else ""
        return f"HttpOnly; SameSite=Strict{secure}"


class _OwnHosts:
    """The hosts that a server answers as: its own names at any port, so that a tunnel works."""

    def __init__(self, listening: Listening):
        self._listening = listening
        names = "|".join(map(re.escape, listening.own_names))
        self._pattern = re.compile(rf"({names})(?::(\d{{1,5}}))?".encode(), re.IGNORECASE)

    def find(self, header: bytes) -> _Host | None:
        """The host that the header names, None for another one's."""
        if (match := self._pattern.fullmatch(header)) is None:
            return None
        scheme = self._listening.scheme(match[1].decode().lower())
        port = match[2].decode() if match[2] else {"http": "80", "https": "443"}[scheme]
        return _Host(port, f"{scheme}://".encode() + header.lower())


class _Headers:
    """The headers of a request. One that comes twice, which servers may read differently, has no value."""

    def __init__(self, scope: Scope):
        self._values: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            # HTTP/2 and some clients split cookies.
            joined = self._values.get(name, b"") + b"; " + value if name == b"cookie" else b""
            self._values[name] = joined if name in self._values else value

    def get(self, name: bytes) -> bytes:
        """The value, empty without one."""
        return self._values.get(name, b"")


def _is_navigation(scope: Scope, headers: _Headers) -> bool:
    """Whether a browser asks for a page to show it in its window."""
    mode, destination = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    is_page = (mode, destination) == (b"navigate", b"document") if mode else b"text/html" in headers.get(b"accept")
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and is_page


def _is_of_another_origin(scope: Scope, headers: _Headers, own: bytes) -> bool:
    """Whether a page of another origin made the browser send this. Following a link is allowed: it shows a page and changes nothing."""
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
    if scope["type"] == "websocket":
        return origin.lower() != own
    if site:
        return site not in (b"same-origin", b"none") and not _is_navigation(scope, headers)
    return bool(origin) and origin.lower() != own


async def refuse(scope: Scope, send: Send, status: HTTPStatus, reason: str) -> None:
    """Answer a request with an error, which says why."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    # RFC 9457, and the two names that MLflow's client shows.
    code = "UNAUTHENTICATED" if status is HTTPStatus.UNAUTHORIZED else "PERMISSION_DENIED"
    problem = {"status": int(status), "title": status.phrase, "detail": reason, "error_code": code, "message": reason}
    challenge = ((b"www-authenticate", b"Bearer"),) if status is HTTPStatus.UNAUTHORIZED else ()
    kind = (b"content-type", b"application/problem+json")
    await _answer(send, status, json.dumps(problem).encode() + b"\n", kind, *challenge)


async def _answer(send: Send, status: HTTPStatus, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    # What is left of a body would be read as the next request.
    last = (b"content-length", b"%d" % len(body)), (b"connection", b"close")
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers, *_POLICY, *last]})
    await send({"type": "http.response.body", "body": body})


_AGAIN = """<script>
if (performance.getEntriesByType("navigation")[0].type !== "reload") location.reload()
</script>"""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{name}: not signed in</title>{again}
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 15vh auto; padding: 0 1em }}
code {{ background: #eee; padding: .2em .4em; border-radius: .2em }}</style>
<h1>{name}</h1>
<p>This browser has no session. Type this where the stack was started, and open the link that it prints:</p>
<p><code>{command}</code></p>
</html>
"""
