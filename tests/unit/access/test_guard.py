"""The guard before a real server: who gets through it, and what a page of another origin cannot do."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mlops_assets.access.callers import Caller, Role, TokenHash, hash_token
from mlops_assets.access.credentials import authorization
from mlops_assets.access.guard import AccessGuard, Receive, Scope, Send
from mlops_assets.access.identities import IDENTITY, Identities, Identity
from mlops_assets.core.listening import Listening
from mlops_assets.local.links import link

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}


@dataclass
class Server:
    """A guarded application that answers with the path it was asked for; its token can be changed."""

    port: int
    token: str = "a-token"
    persons: list[Caller] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "welcome"})
        elif scope["type"] == "http":
            self.asked.append(scope["path"])
            self.identities.append(scope[IDENTITY])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["path"].encode() + b"?" + scope["query_string"]})

    def session(self) -> requests.Session:
        """A browser that opened the link."""
        browser = requests.Session()
        assert browser.get(link(self.url, self.token), timeout=10).ok
        self.asked.clear()
        return browser


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = Server(port)
    who = Identities("A service", lambda: server.token, lambda: server.persons)
    guard = AccessGuard(
        server.application, name="A service", identities=who, listening=Listening(), command="mlops open x", file="a_file"
    )
    uvicorn_server = uvicorn.Server(uvicorn.Config(guard, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=uvicorn_server.run)
    thread.start()
    while not uvicorn_server.started:
        time.sleep(0.01)
    yield server
    uvicorn_server.should_exit = True
    thread.join()


@pytest.fixture
def server(running: Server) -> Server:
    running.token = "a-token"
    running.persons = []
    running.asked.clear()
    running.identities.clear()
    return running


def test_without_the_token_nothing_gets_through(server: Server) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        for headers in ({}, authorization("wrong"), {"Cookie": f"mlops_session_{server.port}=wrong"}, authorization("")):
            answer = requests.request(method, f"{server.url}/graphql?query=x", headers=headers, timeout=10)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    refused = requests.get(server.url, timeout=10).json()
    assert "file a_file of the state folder" in refused["message"]
    assert server.asked == []


def test_a_program_gives_the_token(server: Server) -> None:
    answer = requests.post(f"{server.url}/a?b=c", headers=authorization("a-token"), timeout=10)
    assert (answer.status_code, answer.text) == (200, "/a?b=c")


def test_a_browser_without_a_session_is_told_how_to_get_in(server: Server) -> None:
    answer = requests.get(server.url, headers=NAVIGATION, timeout=10)
    assert answer.status_code == 401
    assert "<code>mlops open x</code>" in answer.text
    assert "a-token" not in answer.text


def test_the_link_opens_a_session_and_leads_to_the_clean_address(server: Server) -> None:
    answer = requests.get(link(f"{server.url}/runs/a%20b?c=d&e=", "a-token"), timeout=10, allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/a%20b?c=d&e=")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"mlops_session_{server.port}=")
    assert "; HttpOnly; SameSite=Strict" in cookie
    assert "a-token" not in cookie
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert server.asked == []


def test_an_old_link_opens_nothing(server: Server) -> None:
    answer = requests.get(link(server.url, "another"), headers=NAVIGATION, timeout=10, allow_redirects=False)
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


def test_the_link_leads_to_no_other_host(server: Server) -> None:
    answer = requests.get(f"{server.url}//elsewhere.example/x?token=a-token", timeout=10, allow_redirects=False)
    assert answer.headers["location"] == "/elsewhere.example/x"


def test_a_new_token_ends_the_sessions(server: Server) -> None:
    browser = server.session()
    assert browser.get(server.url, timeout=10).ok
    server.token = "the next"
    assert browser.get(server.url, timeout=10).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example", ""])
def test_other_names_of_this_machine_are_refused(server: Server, host: str) -> None:
    browser = server.session()
    for headers in ({}, authorization("a-token")):
        answer = browser.get(link(server.url, "a-token"), headers={"Host": host, **headers}, timeout=10, allow_redirects=False)
        assert answer.status_code in (400, 403)
    assert server.asked == []


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "[::1]"])
def test_the_names_of_the_loopback_work_through_a_tunnel(server: Server, name: str) -> None:
    headers = {"Host": f"{name}:9999", **authorization("a-token")}
    assert requests.get(server.url, headers=headers, timeout=10).ok


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", **NAVIGATION},
    ],
)
def test_a_page_of_another_origin_changes_nothing(server: Server, headers: dict[str, str]) -> None:
    answer = server.session().post(server.url, headers=headers, timeout=10)
    assert answer.status_code == 403
    assert server.asked == []


def test_a_page_of_another_origin_embeds_and_reads_nothing(server: Server) -> None:
    browser = server.session()
    for headers in (
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "http://evil.example"},
    ):
        assert browser.get(server.url, headers=headers, timeout=10).status_code == 403
    assert server.asked == []


def test_the_own_pages_work_and_a_link_from_elsewhere_is_followed(server: Server) -> None:
    browser = server.session()
    for headers in ({}, {"Origin": server.url}, {"Sec-Fetch-Site": "same-origin"}):
        assert browser.post(server.url, headers=headers, timeout=10).ok
    assert browser.get(server.url, headers={"Sec-Fetch-Site": "same-site", **NAVIGATION}, timeout=10).ok


def test_a_link_from_elsewhere_is_asked_again_since_the_browser_kept_its_cookie_back(server: Server) -> None:
    answer = requests.get(server.url, headers={"Sec-Fetch-Site": "cross-site", **NAVIGATION}, timeout=10)
    assert "location.reload()" in answer.text
    assert "location.reload()" not in requests.get(server.url, headers=NAVIGATION, timeout=10).text


def test_websockets_take_a_session_and_the_own_origin(server: Server) -> None:
    address = server.url.replace("http", "ws") + "/graphql"
    cookies = server.session().cookies
    [(name, value)] = cookies.items()
    cookie = {"Cookie": f"theme=dark; {name}={value}"}
    with connect(address, origin=server.url, additional_headers=cookie, proxy=None) as socket_:  # type: ignore[arg-type]
        assert socket_.recv(timeout=10) == "welcome"
    with connect(address, additional_headers=authorization("a-token"), proxy=None) as socket_:
        assert socket_.recv(timeout=10) == "welcome"
    for origin, headers in ((server.url, {}), ("http://evil.example", cookie), (None, cookie)):
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, origin=origin, additional_headers=headers, proxy=None)  # type: ignore[arg-type]


def person(name: str, token: str, *, role: Role = "viewer", expires_at: datetime | None = None) -> Caller:
    entry = TokenHash(sha256=hash_token(token), created_at=datetime.now(UTC), expires_at=expires_at)
    return Caller(name=name, role=role, solutions=(), requests_per_second=None, burst=1, tokens=(entry,))


def test_the_application_is_told_who_asks(server: Server) -> None:
    server.persons = [
        person("anna", "token-of-anna"),
        person("ben", "token-of-ben", role="operator"),
        person("shop", "x", role="caller"),
    ]
    for token in ("a-token", "token-of-anna", "token-of-ben"):
        assert requests.get(server.url, headers=authorization(token), timeout=10).ok
    assert requests.get(server.url, headers=authorization("x"), timeout=10).status_code == 401
    with requests.Session() as browser:
        assert browser.get(link(server.url, "token-of-anna"), timeout=10).ok
        assert "token-of-anna" not in str(browser.cookies.items())
    assert server.identities == [
        Identity("owner", "operator", has_session=False),
        Identity("anna", "viewer", has_session=False),
        Identity("ben", "operator", has_session=False),
        Identity("anna", "viewer", has_session=True),
    ]


def test_the_session_of_a_person_ends_with_the_token(server: Server) -> None:
    server.persons = [person("anna", "token-of-anna")]
    with requests.Session() as browser:
        assert browser.get(link(server.url, "token-of-anna"), timeout=10).ok
        server.persons = [person("anna", "token-of-anna", expires_at=datetime.now(UTC))]
        assert browser.get(server.url, timeout=10).status_code == 401
        server.persons = []
        assert browser.get(server.url, timeout=10).status_code == 401


def told(listening: Listening, *, headers: dict[str, str], query: str = "", method: str = "POST") -> dict[str, str]:
    """The status and the headers that a guard of its own answers an application of the token's session with."""
    who = Identities("A service", lambda: "a-token", list)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = AccessGuard(application, name="A service", identities=who, listening=listening, command="mlops open x", file="a_file")
    given = {"cookie": "; ".join(f"mlops_session_{port}={who.session(b'a-token')}" for port in ("80", "443", "3000")), **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": method, "path": "/", "query_string": query.encode(), "headers": raw}
    asyncio.run(guard(scope, receive, send))
    return {"status": str(sent[0]["status"]), **{name.decode(): value.decode() for name, value in sent[0]["headers"]}}


TLS = Listening(address="0.0.0.0", names=("mlops.example.org",), certificate=Path("/c"), key=Path("/k"))
PROXIED = Listening(names=("mlops.example.org",), is_behind_proxy=True)


@pytest.mark.parametrize(
    ("listening", "host", "origin", "status"),
    [
        (TLS, "mlops.example.org:3000", "https://mlops.example.org:3000", "200"),
        (TLS, "MLOPS.example.org:3000", "https://mlops.example.org:3000", "200"),
        (TLS, "mlops.example.org:3000", "http://mlops.example.org:3000", "403"),
        (TLS, "mlops.example.org:3000", "https://mlops.example.org", "403"),
        (TLS, "127.0.0.1:3000", "https://127.0.0.1:3000", "200"),
        (TLS, "evil.example.org:3000", "https://evil.example.org:3000", "403"),
        (TLS, "mlops.example.org.evil:3000", "https://mlops.example.org.evil:3000", "403"),
        (TLS, "mlopsXexample.org:3000", "https://mlopsXexample.org:3000", "403"),
        (TLS, "0.0.0.0:3000", "https://0.0.0.0:3000", "403"),
        (PROXIED, "mlops.example.org", "https://mlops.example.org", "200"),
        (PROXIED, "mlops.example.org", "http://mlops.example.org", "403"),
        (PROXIED, "127.0.0.1:3000", "http://127.0.0.1:3000", "200"),
        (Listening(), "mlops.example.org:3000", "http://mlops.example.org:3000", "403"),
    ],
)
def test_with_tls_the_own_origin_is_one_of_https(listening: Listening, host: str, origin: str, status: str) -> None:
    assert told(listening, headers={"host": host, "origin": origin})["status"] == status


@pytest.mark.parametrize(
    ("listening", "host", "is_secure"),
    [
        (TLS, "mlops.example.org:3000", True),
        (PROXIED, "mlops.example.org", True),
        (PROXIED, "127.0.0.1:3000", False),
        (Listening(), "localhost:3000", False),
    ],
)
def test_a_session_that_was_opened_by_tls_is_never_sent_without(listening: Listening, host: str, is_secure: bool) -> None:
    answer = told(listening, headers={"host": host}, query="token=a-token", method="GET")
    assert answer["status"] == "303"
    assert answer["set-cookie"].endswith("; HttpOnly; SameSite=Strict" + ("; Secure" if is_secure else ""))
