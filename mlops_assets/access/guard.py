"""The guard before a web application: it admits a token, or the session that a token opened in a browser.

An ASGI application around another one. Whatever a web page elsewhere makes a browser send is refused: other names of this machine
(DNS rebinding), requests that another origin began (CSRF), frames.
"""

from html import escape
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

from mlops_assets.access.credentials import bearer_token
from mlops_assets.access.exchange import (
    Application,
    Headers,
    Host,
    OwnHosts,
    Receive,
    Scope,
    Send,
    answer,
    is_navigation,
    is_of_another_origin,
    refuse,
    show_page,
)
from mlops_assets.access.identities import IDENTITY, Identities, Identity
from mlops_assets.access.sign_in import SIGN_IN_PREFIX, SignIn
from mlops_assets.core.listening import Listening

TOKEN_PARAMETER = "token"  # noqa: S105 - its name, not a token
"""`?token=...` opens a session and leads to the same address without it."""

_SESSION_SECONDS = 30 * 24 * 60 * 60


class AccessGuard:
    """The guard of one application.

    `name` is of the service and `identities` tell whom it opens to; the application finds who it is in the scope. `command` is what a person
    types to get in, `file` is the name of the file in the state folder in which a program finds the token. With `sign_in` people may come by
    an OpenID provider too.
    """

    def __init__(
        self,
        application: Application,
        *,
        name: str,
        identities: Identities,
        listening: Listening,
        command: str,
        file: str,
        sign_in: SignIn | None = None,
    ):
        self._application = application
        self._name = name
        self._identities = identities
        self._hosts, self._names = OwnHosts(listening), ", ".join(listening.own_names)
        self._command = command
        self._file = file
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it. What is neither HTTP nor a WebSocket (the start and the end of a server) passes."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        headers = Headers(scope)
        host = self._hosts.find(headers.get(b"host"))
        if host is None:
            await refuse(scope, send, HTTPStatus.FORBIDDEN, f"This server answers under its own names alone: {self._names}.")
            return
        if self._sign_in is not None and scope["type"] == "http" and scope["path"].startswith(SIGN_IN_PREFIX):
            await self._sign_in.answer(scope, receive, send, headers, host)
            return
        token = bearer_token(headers.get(b"authorization"))
        identity = None if token is None else self._identities.of_token(token)
        if identity is not None:
            await self._admit(identity, scope, receive, send)
        elif TOKEN_PARAMETER in dict(parse_qsl(scope["query_string"].decode("latin-1"))):
            await self._open_session(scope, send, headers, host)
        elif (identity := self._identity_of_session(headers, host)) is None:
            await self._show_the_way(scope, send, headers)
        elif is_of_another_origin(scope, headers, host.origin):
            await refuse(scope, send, HTTPStatus.FORBIDDEN, f"{self._name} takes nothing that a page of another origin sends.")
        else:
            await self._admit(identity, scope, receive, send)

    async def _admit(self, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        scope[IDENTITY] = identity
        await self._application(scope, receive, send)

    async def _open_session(self, scope: Scope, send: Send, headers: Headers, host: Host) -> None:
        """Exchange the token in the address for a cookie, and lead to the address without it."""
        parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = dict(parameters)[TOKEN_PARAMETER].encode()
        if scope["type"] != "http" or self._identities.of_token(token) is None:
            await self._show_the_way(scope, send, headers)
            return
        left = urlencode([(name, value) for name, value in parameters if name != TOKEN_PARAMETER])
        # The path as it was sent; two slashes at its beginning would name another host.
        path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/")
        await answer(
            send,
            HTTPStatus.SEE_OTHER,
            b"",
            (b"location", (path + (f"?{left}" if left else "")).encode("latin-1")),
            host.cookie_header(host.cookie, self._identities.session(token), seconds=_SESSION_SECONDS),
        )

    def _identity_of_session(self, headers: Headers, host: Host) -> Identity | None:
        sessions = map(self._identities.of_session, headers.cookies(host.cookie))
        return next((identity for identity in sessions if identity is not None), None)

    async def _show_the_way(self, scope: Scope, send: Send, headers: Headers) -> None:
        """Say how to get in: a page for a browser, JSON for a program."""
        sentence = f"{self._name} opens with the link that `{self._command}` prints."
        if not is_navigation(scope, headers):
            program = f"A program gives the token in the file {self._file} of the state folder: `Authorization: Bearer <token>`."
            await refuse(scope, send, HTTPStatus.UNAUTHORIZED, f"{sentence} {program}")
            return
        # A browser keeps a strict cookie back when a link elsewhere, as in a mail, leads here: asked again from here it sends it.
        again = _AGAIN if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") else ""
        signing_in = (
            f'<p><a href="{escape(self._sign_in.link(scope))}">Sign in</a>, or as the owner:</p>\n' if self._sign_in else ""
        )
        content = f"{signing_in}{_OWNER.format(command=escape(self._command))}"
        await show_page(send, HTTPStatus.UNAUTHORIZED, f"{self._name}: not signed in", content, head=again)


_AGAIN = """<script>
if (performance.getEntriesByType("navigation")[0].type !== "reload") location.reload()
</script>"""

_OWNER = """<p>This browser has no session. Type this where the stack was started, and open the link that it prints:</p>
<p><code>{command}</code></p>"""
