"""The name of the environment on pages, and on nothing else."""

import asyncio
from typing import Any

import pytest

from mlops_assets.access.environment_banner import EnvironmentBanner

PAGE = b"<!doctype html><html><body><p>Runs</p></body></html>"
BROWSER = [(b"accept", b"text/html"), (b"accept-encoding", b"gzip"), (b"if-none-match", b"x")]


def answer(
    environment: str, kind: str, body: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[dict[str, str], bytes, list[bytes]]:
    """Headers and body of the answer, and the names of the headers that the application was asked with."""
    asked: list[bytes] = []
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.extend(name for name, _ in scope["headers"])
        length = b"%d" % len(body)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", kind.encode()), (b"content-length", length), (b"etag", b"x"), (b"x-kept", b"1")],
            }
        )
        await send({"type": "http.response.body", "body": body[:20], "more_body": True})
        await send({"type": "http.response.body", "body": body[20:]})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(EnvironmentBanner(application, environment)(scope, receive, send))
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return names, b"".join(message.get("body", b"") for message in sent), asked


def test_a_page_names_the_environment() -> None:
    headers, body, asked = answer("branch-<x>", "text/html; charset=utf-8", PAGE, BROWSER)
    assert b"<p>Runs</p>" in body
    assert b"Environment branch-&lt;x&gt;</div></body></html>" in body
    # A browser must not believe an old page, nor one that is longer than it is said to be.
    assert headers == {"content-type": "text/html; charset=utf-8", "content-length": str(len(body)), "x-kept": "1"}
    assert asked == [b"accept"]


def test_a_page_without_an_end_names_it_too() -> None:
    _, body, _ = answer("prod", "text/html", b"<!doctype html><title>Runs</title>", BROWSER)
    assert body.startswith(b"<!doctype html><title>Runs</title><div ")
    assert b"Environment prod" in body


def test_what_is_no_request_passes() -> None:
    passed = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope)

    lifespan = {"type": "lifespan"}
    asyncio.run(EnvironmentBanner(application, "prod")(lifespan, None, None))  # type: ignore[arg-type]
    assert passed == [lifespan]


@pytest.mark.parametrize(
    ("environment", "kind", "headers"),
    [
        ("local", "text/html", BROWSER),
        ("prod", "application/json", BROWSER),
        # A program that fetches an artifact gets its bytes.
        ("prod", "text/html", [(b"accept", b"*/*")]),
        ("prod", "text/html", [(b"accept", b"text/html"), (b"sec-fetch-mode", b"cors"), (b"sec-fetch-dest", b"empty")]),
    ],
)
def test_nothing_else_is_changed(environment: str, kind: str, headers: list[tuple[bytes, bytes]]) -> None:
    names, body, _ = answer(environment, kind, PAGE, headers)
    assert (body, names["content-length"], names["etag"]) == (PAGE, str(len(PAGE)), "x")
