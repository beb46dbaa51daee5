"""A guarded application at which people sign in by an OpenID provider, and browsers that go through its pages."""

import html
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import uvicorn
from openid_provider import OpenIdProvider

from mlops_assets.access.exchange import Receive, Scope, Send
from mlops_assets.access.guard import AccessGuard
from mlops_assets.access.identities import IDENTITY, Identities, Identity
from mlops_assets.access.person_sessions import PersonSessions
from mlops_assets.access.sign_in import SignIn
from mlops_assets.core.listening import Listening
from mlops_assets.core.sign_on import SignOn

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}


class GuardedService:
    """A guarded application, and browsers that go through its pages."""

    def __init__(self, provider: OpenIdProvider, folder: Path, port: int):
        self.provider, self.url, self.port, self.token = provider, f"http://127.0.0.1:{port}", port, "a-token"
        self.audit_log, self.folder = folder / "audit.jsonl", folder / "sessions"
        self.asked: list[Identity] = []
        self.sign_on = SignOn(
            issuer=provider.issuer,
            client_id="mlops",
            client_secret="a-secret",
            operators=("admins",),
            viewers=("readers", "staff"),
        )
        self.sessions = self.sessions_of("A service")
        self.guard = self.guarded(self.sign_on)

    def sessions_of(self, service: str, sign_on: SignOn | None = None) -> PersonSessions:
        return PersonSessions(self.folder, service, lambda: self.token, sign_on or self.sign_on)

    def guarded(self, sign_on: SignOn) -> AccessGuard:
        return AccessGuard(
            self._application,
            name="A service",
            identities=Identities("A service", lambda: self.token, list, self.sessions),
            listening=Listening(),
            command="mlops open x",
            file="a_file",
            sign_in=SignIn("A service", sign_on, self.sessions, self.audit_log),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.guard(scope, receive, send)

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope[IDENTITY])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"let in"})

    def begin(self, browser: requests.Session, page: str = "/") -> requests.Response:
        """Go to a page without a session, and by its link to the provider."""
        answer = browser.get(f"{self.url}{page}", headers=NAVIGATION, timeout=10)
        link = re.search(r'href="(/\.mlops/sign-in[^"]*)"', answer.text)
        assert (answer.status_code, link is not None) == (401, True)
        assert link is not None
        return browser.get(f"{self.url}{html.unescape(link[1])}", timeout=10)

    def answered(self, browser: requests.Session, name: str, page: str = "/") -> str:
        """Where the provider sends a browser back to that signed in there."""
        asked = self.begin(browser, page)
        given = browser.post(asked.url, data={"sub": name}, timeout=10, allow_redirects=False)
        assert given.status_code == 302, given.text
        return given.headers["location"]

    def sign_in(self, name: str, page: str = "/") -> tuple[requests.Session, requests.Response]:
        browser = requests.Session()
        return browser, browser.get(self.answered(browser, name, page), timeout=10)


@contextmanager
def guarded_service(provider: OpenIdProvider, folder: Path) -> Iterator[GuardedService]:
    """The service at a port of its own, with its files in `folder`, while the block runs."""
    provider.change, provider.metadata = None, {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = GuardedService(provider, folder, listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(service, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield service
        finally:
            server.should_exit = True
            thread.join()
