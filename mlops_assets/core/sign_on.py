"""The OpenID provider by which people sign in to Dagster and MLflow, and which of its groups have which role."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from mlops_assets.core.environment_values import read_count


@dataclass(frozen=True, kw_only=True)
class SignOn:
    """A client of an OpenID provider. Its secret is empty in processes that do not need it.

    A person has the role of the values that the claim `role_claim` has of theirs, operator before viewer.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    role_claim: str = "groups"
    viewers: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    scopes: str = "openid profile email"
    session_hours: int = 12

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "SignOn | None":
        """Read the variables; None without an issuer. Raises ValueError naming one that is missing or cannot be used."""
        if not (issuer := environment.get("MLOPS_OIDC_ISSUER")):
            return None
        if not _is_safe(issuer):
            raise ValueError(f"MLOPS_OIDC_ISSUER={issuer!r} is no address that begins with https://.")
        if not (client_id := environment.get("MLOPS_OIDC_CLIENT_ID")):
            raise ValueError("MLOPS_OIDC_CLIENT_ID is not set: the provider of MLOPS_OIDC_ISSUER names one for this client.")
        viewers, operators = _names(environment, "MLOPS_OIDC_VIEWERS"), _names(environment, "MLOPS_OIDC_OPERATORS")
        if not viewers and not operators:
            raise ValueError("Nobody could sign in: name groups in MLOPS_OIDC_VIEWERS or MLOPS_OIDC_OPERATORS.")
        return cls(
            issuer=issuer,
            client_id=client_id,
            client_secret=environment.get("MLOPS_OIDC_CLIENT_SECRET", ""),
            role_claim=environment.get("MLOPS_OIDC_ROLE_CLAIM") or cls.role_claim,
            viewers=viewers,
            operators=operators,
            scopes=environment.get("MLOPS_OIDC_SCOPES") or cls.scopes,
            session_hours=read_count(environment, "MLOPS_OIDC_SESSION_HOURS", cls.session_hours, most=720),
        )


def sign_on_variables(sign_on: SignOn | None) -> dict[str, str]:
    """The variables that `SignOn.from_environment` reads this from."""
    return {
        "MLOPS_OIDC_ISSUER": sign_on.issuer if sign_on else "",
        "MLOPS_OIDC_CLIENT_ID": sign_on.client_id if sign_on else "",
        "MLOPS_OIDC_CLIENT_SECRET": sign_on.client_secret if sign_on else "",
        "MLOPS_OIDC_ROLE_CLAIM": sign_on.role_claim if sign_on else "",
        "MLOPS_OIDC_VIEWERS": ",".join(sign_on.viewers) if sign_on else "",
        "MLOPS_OIDC_OPERATORS": ",".join(sign_on.operators) if sign_on else "",
        "MLOPS_OIDC_SCOPES": sign_on.scopes if sign_on else "",
        "MLOPS_OIDC_SESSION_HOURS": str(sign_on.session_hours) if sign_on else "",
    }


def _names(environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in environment.get(variable, "").split(",") if name.strip())


def _is_safe(address: str) -> bool:
    """Whether nobody on the way to the address can change what it answers."""
    parts = urlsplit(address)
    if parts.scheme == "https":
        return bool(parts.hostname)
    try:
        return parts.scheme == "http" and (parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback)
    except ValueError:
        return False
