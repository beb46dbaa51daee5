"""The client of the OpenID provider: where a browser is sent, and what comes back with it, verified by Authlib."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.core.sign_on import SignOn

_SECONDS = 10
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures by a key that the provider alone has: neither `none`, nor one by the secret of the client."""


class SignInError(Exception):
    """Somebody cannot be signed in; the message tells why, and holds no token."""


@dataclass(frozen=True)
class Question:
    """What a browser takes to the provider: the address with all of it, and what the answer has to fit."""

    address: str
    state: str
    nonce: str
    code_verifier: str
    callback: str


class Provider:
    """One OpenID provider. Its methods wait for it: call them in a thread.

    Raises StackError without the package that they need, or the secret of the client.
    """

    def __init__(self, sign_on: SignOn):
        try:
            from authlib.integrations.base_client import BaseApp, OAuth2Mixin, OpenIDMixin
            from authlib.integrations.requests_client import OAuth2Session
        except ImportError as error:
            raise StackError(
                "MLOPS_OIDC_ISSUER needs a package that is not installed.", remedy="pip install 'mlops-assets[oidc]'"
            ) from error

        if not sign_on.client_secret:
            raise StackError(
                "MLOPS_OIDC_CLIENT_SECRET is not set.", remedy="Set it to the one that the provider of MLOPS_OIDC_ISSUER names."
            )

        class _Client(OAuth2Mixin, OpenIDMixin, BaseApp):
            """As Authlib composes it for each framework."""

            client_cls = OAuth2Session

        self._sign_on = sign_on
        self._client = _Client(
            framework=None,
            name="openid",
            client_id=sign_on.client_id,
            client_secret=sign_on.client_secret,
            server_metadata_url=f"{sign_on.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={"scope": sign_on.scopes, "code_challenge_method": "S256", "default_timeout": _SECONDS},
        )

    def ask(self, callback: str) -> Question:
        """What a browser is sent to the provider with, to come back to `callback`. Raises SignInError when the provider does not answer."""
        with _told():
            self._check_metadata()
            made = self._client.create_authorization_url(callback)
        return Question(made["url"], made["state"], made["nonce"], made["code_verifier"], callback)

    def claims(self, question: Question, code: str) -> dict[str, Any]:
        """Who answered a question with this code. Raises SignInError unless the provider says so, to this client, now, to this question."""
        with _told():
            metadata = self._check_metadata()
            token = self._client.fetch_access_token(question.callback, code=code, code_verifier=question.code_verifier)
            if "id_token" not in token:
                raise SignInError("the provider gave no ID token")
            from authlib.oidc.core import CodeIDToken

            claims = self._client.parse_id_token(
                token,
                question.nonce,
                claims_options={"iss": {"values": [metadata["issuer"]]}, "aud": {"values": [self._sign_on.client_id]}},
                claims_cls=CodeIDToken,
                leeway=60,
            )
        return dict(claims)

    def _check_metadata(self) -> dict[str, Any]:
        metadata = self._client.load_server_metadata()
        if metadata.get("issuer") != self._sign_on.issuer:
            raise SignInError(f"the provider at {self._sign_on.issuer} says that it is {metadata.get('issuer')!r}")
        signed = metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        metadata["id_token_signing_alg_values_supported"] = [name for name in signed if name in _ALGORITHMS]
        return dict(metadata)


@contextmanager
def _told() -> Iterator[None]:
    """Tell what goes wrong between here and the provider as a SignInError."""
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError
    from requests import RequestException

    try:
        yield
    except (AuthlibBaseError, JoseError) as error:
        raise SignInError(f"{error.error}: {error.description or ''}".rstrip(": ")) from error
    except RequestException as error:
        raise SignInError(f"the provider does not answer: {type(error).__name__}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SignInError(f"the provider's answer cannot be read: {error}") from error


def person(claims: Mapping[str, Any]) -> str:
    """The name of who signed in: the subject, which stays the same, with what people know them by. No name of a token has a space."""
    known = claims.get("email") or claims.get("preferred_username") or "OpenID"
    return f"{claims['sub']} ({known})"


def groups(sign_on: SignOn, claims: Mapping[str, Any]) -> list[str]:
    """The groups of who signed in that have a role here."""
    value = claims.get(sign_on.role_claim)
    given = value if isinstance(value, list) else [value]
    return [group for group in (*sign_on.operators, *sign_on.viewers) if group in given]
