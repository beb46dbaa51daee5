"""A real OpenID provider in this process, whose ID tokens a test can change before they are signed."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import flask
import oidc_provider_mock
from joserfc import jwt
from joserfc.jwk import RSAKey
from oidc_provider_mock._server import _threaded_server
from oidc_provider_mock._storage import storage

PEOPLE = {"olga": ["admins"], "vera": ["staff", "readers"], "nobody": ["guests"]}
"""Who can sign in, with their groups."""


class OpenIdProvider:
    """The provider at `issuer`. `change` is given the claims of each ID token, and may return the token to give instead."""

    def __init__(self) -> None:
        users = [
            oidc_provider_mock.User(sub=name, claims={"groups": groups, "email": f"{name}@example.org"})
            for name, groups in PEOPLE.items()
        ]
        self.app = oidc_provider_mock.app(user_claims=users, require_nonce=True)
        self.issuer = ""
        self.metadata: dict[str, Any] = {}
        self.change: Callable[[dict[str, Any]], str | None] | None = None
        self.verified: list[bool] = []
        self._challenges: list[str] = []
        self.app.before_request(self._look)
        self.app.after_request(self._alter)

    def sign(self, claims: dict[str, Any]) -> str:
        """An ID token with the provider's own key."""
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)

    @property
    def key(self) -> RSAKey:
        """The key of the provider; inside a request."""
        return RSAKey.import_key(storage.jwk.as_dict(is_private=True))

    def _look(self) -> None:
        """What the provider of the wheel leaves out: that the code comes from who asked for it (PKCE)."""
        if flask.request.path == "/oauth2/authorize" and flask.request.method == "POST":
            assert flask.request.args["code_challenge_method"] == "S256"
            self._challenges.append(flask.request.args["code_challenge"])
        elif flask.request.path == "/oauth2/token":
            digest = sha256(flask.request.form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            self.verified.append(self._challenges[-1] == challenge)

    def _alter(self, response: flask.Response) -> flask.Response:
        if flask.request.path == "/.well-known/openid-configuration":
            response.set_data(flask.json.dumps({**response.get_json(), **self.metadata}))
        elif flask.request.path == "/oauth2/token" and response.status_code == 200 and self.change:
            answer = response.get_json()
            claims = dict(jwt.decode(answer["id_token"], self.key).claims)
            token = self.change(claims) or self.sign(claims)
            response.set_data(flask.json.dumps({**answer, "id_token": token}))
        return response


@contextmanager
def openid_provider() -> Iterator[OpenIdProvider]:
    """The provider while the block runs."""
    provider = OpenIdProvider()
    with _threaded_server(app=provider.app, poll_interval=0.01) as server:
        provider.issuer = f"http://localhost:{server.server_port}"
        yield provider
