"""The name of the environment on every page that a browser shows: an ASGI application around the one that answers with the pages."""

from collections.abc import MutableMapping
from html import escape
from typing import Any

from mlops_assets.access.exchange import Application, Headers, Receive, Scope, Send, is_navigation
from mlops_assets.core.environment_files import DEFAULT_ENVIRONMENT

_END = b"</body>"
_OWN_HEADERS = (b"content-length", b"etag", b"last-modified")
"""Those that a changed page makes wrong."""

_BANNER = (
    '<div style="position:fixed;bottom:0;left:50%;transform:translateX(-50%);z-index:2147483647;pointer-events:none;padding:2px 12px;'
    'border-radius:6px 6px 0 0;background:#b45309;color:#fff;font:13px/1.4 system-ui,sans-serif">Environment {name}</div>'
)


class EnvironmentBanner:
    """Adds the name `environment` to each page of `application`. The default environment, which a machine may have alone, has no banner."""

    def __init__(self, application: Application, environment: str):
        self._application = application
        self._banner = b"" if environment == DEFAULT_ENVIRONMENT else _BANNER.format(name=escape(environment)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and put the name on the page that answers it. What is no page passes as it is."""
        if not self._banner or scope["type"] != "http" or not is_navigation(scope, Headers(scope)):
            await self._application(scope, receive, send)
            return
        # A page that is compressed or unchanged could not be added to.
        left_out = (b"accept-encoding", b"if-none-match", b"if-modified-since")
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in left_out]}
        await self._application(scope, receive, _Page(send, self._banner).receive)


class _Page:
    """The answer of an application, held back until it is complete when it is a page."""

    def __init__(self, send: Send, banner: bytes):
        self._send, self._banner = send, banner
        self._start: MutableMapping[str, Any] | None = None
        self._body = b""

    async def receive(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and _is_page(message):
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)
        else:
            await self._send(message)

    async def _finish(self, start: MutableMapping[str, Any]) -> None:
        before, end, after = self._body.rpartition(_END)
        # Without an end it goes on with what is added.
        body = before + self._banner + end + after if end else self._body + self._banner
        kept = [(name, value) for name, value in start["headers"] if name.lower() not in _OWN_HEADERS]
        await self._send({**start, "headers": [*kept, (b"content-length", b"%d" % len(body))]})
        await self._send({"type": "http.response.body", "body": body})


def _is_page(message: MutableMapping[str, Any]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"])
