"""Requests and answers of the guard: the host and the headers of a request, where it came from, and the pages that refuse."""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any

from mlops_assets.core.listening import Listening

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store")


@dataclass(frozen=True)
class Host:
    """The host of a request, one of the server's own: its port as the request has it, and the origin of its pages."""

    port: str
    origin: bytes

    @property
    def cookie(self) -> str:
        """The name of the session's cookie. Browsers keep one set of cookies for all ports of a host: the name tells them apart."""
        return f"mlops_session_{self.port}"

    def cookie_header(
        self, name: str, value: str, *, seconds: int, path: str = "/", same_site: str = "Strict"
    ) -> tuple[bytes, bytes]:
        """The header that gives a browser a cookie for this host, or with 0 `seconds` takes it away."""
        secure = "; Secure" if self.origin.startswith(b"https:") else ""
        attributes = f"Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"
        return b"set-cookie", f"{name}={value}; {attributes}".encode()


class OwnHosts:
    """The hosts that a server answers as: its own names at any port, so that a tunnel works."""

    def __init__(self, listening: Listening):
        self._listening = listening
        names = "|".join(map(re.escape, listening.own_names))
        self._pattern = re.compile(rf"({names})(?::(\d{{1,5}}))?".encode(), re.IGNORECASE)

    def find(self, header: bytes) -> Host | None:
        """The host that the header names, None for another one's."""
        if (match := self._pattern.fullmatch(header)) is None:
            return None
        scheme = self._listening.scheme(match[1].decode().lower())
        port = match[2].decode() if match[2] else {"http": "80", "https": "443"}[scheme]
        return Host(port, f"{scheme}://".encode() + header.lower())


class Headers:
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

    def cookies(self, name: str) -> list[bytes]:
        """The values of the cookies of this name: a browser may have several, of different paths."""
        pairs = (pair.strip().partition("=") for pair in self.get(b"cookie").decode("latin-1").split(";"))
        return [value.encode("latin-1") for key, _, value in pairs if key == name]


def is_navigation(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks for a page to show it in its window."""
    mode, destination = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    is_page = (mode, destination) == (b"navigate", b"document") if mode else b"text/html" in headers.get(b"accept")
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and is_page


def is_of_another_origin(scope: Scope, headers: Headers, own: bytes) -> bool:
    """Whether a page of another origin made the browser send this. Following a link is allowed: it shows a page and changes nothing."""
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
    if scope["type"] == "websocket":
        return origin.lower() != own
    if site:
        return site not in (b"same-origin", b"none") and not is_navigation(scope, headers)
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
    await answer(send, status, json.dumps(problem).encode() + b"\n", kind, *challenge)


async def answer(send: Send, status: HTTPStatus, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Answer a request, and close the connection."""
    # What is left of a body would be read as the next request.
    last = (b"content-length", b"%d" % len(body)), (b"connection", b"close")
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers, *_POLICY, *last]})
    await send({"type": "http.response.body", "body": body})


async def show_page(
    send: Send, status: HTTPStatus, title: str, content: str, *headers: tuple[bytes, bytes], head: str = ""
) -> None:
    """Answer a browser with a page of the guard: `content` and `head` are HTML."""
    page = _PAGE.format(title=escape(title), head=head, content=content)
    kind = (b"content-type", b"text/html; charset=utf-8")
    await answer(send, status, page.encode(), kind, (b"x-frame-options", b"DENY"), *headers)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>{head}
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 15vh auto; padding: 0 1em }}
code {{ background: #eee; padding: .2em .4em; border-radius: .2em }}</style>
<h1>{title}</h1>
{content}
</html>
"""
