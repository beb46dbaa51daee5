"""People who sign in by a real OpenID provider at a real guard, and answers that sign in nobody."""

import html
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from guarded_service import GuardedService, guarded_service
from joserfc import jwt
from joserfc.jwk import RSAKey
from openid_provider import OpenIdProvider, openid_provider

from mlops_assets.access.audit import read_audit_log
from mlops_assets.access.identities import Identity
from mlops_assets.core.errors import StackError


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with openid_provider() as provider:
        yield provider


@pytest.fixture
def service(provider: OpenIdProvider, tmp_path: Path) -> Iterator[GuardedService]:
    with guarded_service(provider, tmp_path) as service:
        yield service


def test_neither_the_pages_nor_the_log_have_a_secret(service: GuardedService, caplog: pytest.LogCaptureFixture) -> None:
    tokens: list[str] = []

    def keep(claims: dict[str, Any]) -> None:
        claims["aud"] = "another client"
        tokens.append(service.provider.sign(claims))

    service.provider.change = keep
    _, page = service.sign_in("olga")
    log = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("werkzeug"))
    assert "Nobody was signed in" in log
    assert tokens
    assert not [secret for secret in (*tokens, "a-secret", "a-token") if secret in page.text + log]
    assert "a-secret" not in repr(service.sign_on)


@pytest.mark.parametrize(("name", "role"), [("olga", "operator"), ("vera", "viewer")])
def test_a_person_signs_in_with_the_role_of_their_group(service: GuardedService, name: str, role: str) -> None:
    browser, page = service.sign_in(name, "/runs?view=a&b='c'")
    assert page.status_code == 200
    leads = re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', page.text)
    assert leads is not None
    assert html.unescape(leads[1]) == "/runs?view=a&b='c'"
    assert service.provider.verified[-1]
    assert browser.get(service.url, timeout=10).text == "let in"
    who = f"{name} ({name}@example.org)"
    assert service.asked == [Identity(who, role, has_session=True)]
    assert [(entry.actor, entry.role, entry.action, entry.outcome) for entry in read_audit_log(service.audit_log)] == [
        (who, role, "sign in", "done")
    ]
    session = browser.cookies[f"mlops_session_{service.port}"]
    assert (
        f"mlops_session_{service.port}={session}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict" in page.headers["set-cookie"]
    )
    # What is kept opens nothing, and is the owner's alone.
    [kept] = service.folder.iterdir()
    assert session not in kept.name + kept.read_text()
    assert (kept.stat().st_mode & 0o777, service.folder.stat().st_mode & 0o777) == (0o600, 0o700)


def _unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "none"}, claims, RSAKey.generate_key(), algorithms=["none"])


def _of_another_key(claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256"}, claims, RSAKey.generate_key())


def _with(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda claims: claims.update(changed)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda claims: claims.__delitem__(name)


@pytest.mark.parametrize(
    "change",
    [
        _with(iss="http://localhost:1"),
        _without("iss"),
        _with(aud="another client"),
        _with(aud=["another client"], azp="mlops"),
        _with(aud=["mlops", "another client"], azp="another client"),
        _with(exp=int(time.time()) - 3600),
        _without("exp"),
        _with(iat=int(time.time()) + 3600),
        _with(nonce="of another question"),
        _without("nonce"),
        _without("sub"),
        _of_another_key,
        _unsigned,
    ],
)
def test_a_token_for_others_of_others_or_of_another_time_signs_in_nobody(
    service: GuardedService, change: Callable[[dict[str, Any]], str | None]
) -> None:
    service.provider.change = change
    browser, page = service.sign_in("olga")
    assert (page.status_code, "Nobody was signed in" in page.text) == (403, True)
    assert f"mlops_session_{service.port}" not in browser.cookies
    assert browser.get(service.url, timeout=10).status_code == 401
    assert not service.folder.exists()


def test_an_answer_counts_once_in_the_browser_that_asked(service: GuardedService) -> None:
    browser = requests.Session()
    answer = service.answered(browser, "olga")
    # Of somebody who was made to follow it: they would work as olga.
    assert requests.get(answer, timeout=10).status_code == 403
    # That used it up.
    assert browser.get(answer, timeout=10).status_code == 403
    answer = service.answered(browser, "olga")
    assert browser.get(answer, timeout=10).status_code == 200
    assert browser.get(answer, timeout=10).status_code == 403
    assert browser.get(f"{service.url}/.mlops/signed-in?state=invented&code=x", timeout=10).status_code == 403
    answer = service.answered(requests.Session(), "olga")
    stranger = service.answered(other := requests.Session(), "vera")
    mixed = f"{answer.partition('code=')[0]}code={stranger.partition('code=')[2].partition('&')[0]}&state="
    assert other.get(mixed + answer.partition("state=")[2].partition("&")[0], timeout=10).status_code == 403


def test_another_provider_cannot_answer(service: GuardedService) -> None:
    browser = requests.Session()
    answer = service.answered(browser, "olga")
    assert "another provider answered" in browser.get(f"{answer}&iss=https://evil.example", timeout=10).text


def test_somebody_without_a_group_that_has_a_role_is_told_so(service: GuardedService) -> None:
    _, page = service.sign_in("nobody")
    assert page.status_code == 403
    assert "nobody (nobody@example.org) has none of the groups that have a role here" in page.text


def test_who_declines_at_the_provider_is_told_what_it_says(service: GuardedService) -> None:
    browser = requests.Session()
    asked = service.begin(browser)
    denied = browser.post(asked.url, data={"action": "deny"}, timeout=10, allow_redirects=False).headers["location"]
    # This provider leaves out the state, which the standard wants.
    answer = browser.get(f"{denied}&state={parse_qs(urlsplit(asked.url).query)['state'][0]}", timeout=10)
    assert (answer.status_code, "access_denied" in answer.text) == (403, True)


@pytest.mark.parametrize(
    ("to", "page"),
    [
        ("https://evil.example/", "/"),
        ("//evil.example/", "/evil.example/"),
        ("/\\evil.example/", "/evil.example/"),
        ("/\t/evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ('/"><script>alert(1)</script>', '/"><script>alert(1)</script>'),
    ],
)
def test_signing_in_leads_to_no_other_host(service: GuardedService, to: str, page: str) -> None:
    browser = requests.Session()
    asked = browser.get(f"{service.url}/.mlops/sign-in", params={"to": to}, timeout=10)
    answer = browser.post(asked.url, data={"sub": "olga"}, timeout=10)
    leads = re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', answer.text)
    assert leads is not None
    assert html.unescape(leads[1]) == page
    assert "<script>" not in answer.text


def test_the_provider_leads_back_to_this_door_alone(service: GuardedService) -> None:
    asked = service.begin(requests.Session())
    assert parse_qs(urlsplit(asked.url).query)["redirect_uri"] == [f"{service.url}/.mlops/signed-in"]
    foreign = requests.get(f"{service.url}/.mlops/sign-in", headers={"Host": "evil.example"}, timeout=10)
    assert foreign.status_code == 403


def test_who_signs_out_ends_the_session_for_every_copy_of_it(service: GuardedService) -> None:
    browser, _ = service.sign_in("vera")
    copy = {"Cookie": f"mlops_session_{service.port}={browser.cookies[f'mlops_session_{service.port}']}"}
    out = f"{service.url}/.mlops/sign-out"
    assert "<form" in browser.get(out, timeout=10).text
    assert browser.post(out, headers={"Origin": "https://evil.example"}, timeout=10).status_code == 403
    assert requests.get(service.url, headers=copy, timeout=10).ok
    assert browser.post(out, headers={"Origin": service.url}, timeout=10).ok
    assert f"mlops_session_{service.port}" not in browser.cookies
    assert requests.get(service.url, headers=copy, timeout=10).status_code == 401
    assert [entry.action for entry in read_audit_log(service.audit_log)] == ["sign in", "sign out"]


def test_a_session_is_of_one_service_of_the_groups_that_count_now_and_ends(service: GuardedService) -> None:
    browser, _ = service.sign_in("vera")
    session = browser.cookies[f"mlops_session_{service.port}"].encode()
    assert service.sessions.find(session) == ("vera (vera@example.org)", "viewer")
    assert service.sessions_of("Another service").find(session) is None
    assert service.sessions_of("A service", replace(service.sign_on, viewers=("others",))).find(session) is None
    promoted = replace(service.sign_on, viewers=(), operators=("staff",))
    assert service.sessions_of("A service", promoted).find(session) == ("vera (vera@example.org)", "operator")
    for wrong in (b"", b"p.", b"p.../../../audit.jsonl", session[:-1], session + b"x"):
        assert service.sessions.find(wrong) is None
    brief = service.sessions_of("A service", replace(service.sign_on, session_hours=0))
    ended, seconds = brief.open("vera", ["staff"])
    assert (seconds, brief.find(ended.encode())) == (0, None)
    service.sessions.open("olga", ["admins"])
    assert len(list(service.folder.iterdir())) == 2
    service.token = "the owner's next token"
    assert service.sessions.find(session) is None
    assert browser.get(service.url, timeout=10).status_code == 401


def test_a_provider_that_is_another_or_away_signs_in_nobody(service: GuardedService) -> None:
    service.provider.metadata = {"issuer": "https://evil.example"}
    refused = requests.get(f"{service.url}/.mlops/sign-in", timeout=10)
    assert (refused.status_code, "says that it is &#x27;https://evil.example&#x27;" in refused.text) == (403, True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    service.guard = service.guarded(replace(service.sign_on, issuer=f"http://127.0.0.1:{port}"))
    assert "the provider does not answer" in requests.get(f"{service.url}/.mlops/sign-in", timeout=10).text


def test_a_door_does_not_open_without_the_secret_of_its_client(service: GuardedService) -> None:
    with pytest.raises(StackError, match="MLOPS_OIDC_CLIENT_SECRET is not set"):
        service.guarded(replace(service.sign_on, client_secret=""))


def test_a_signature_by_the_secret_of_the_client_is_none(service: GuardedService) -> None:
    service.provider.metadata = {"id_token_signing_alg_values_supported": ["none", "HS256", "RS256"]}
    service.provider.change = _unsigned
    _, page = service.sign_in("olga")
    assert page.status_code == 403
