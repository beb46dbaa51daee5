"""Where the servers of an installation listen, under which names they are reached, and the files of their certificate."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from mlops_assets.core.environment_values import read_switch

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""This machine, as its own browser names it."""

_LOOPBACK = LOOPBACK_NAMES[0]


@dataclass(frozen=True, kw_only=True)
class Listening:
    """The address of all servers of the stack that have a port, and how they are protected there.

    `names` are those under which they are reached besides the loopback ones, the one that the platform itself uses first. With `certificate`
    and `key`, files in PEM form, they speak TLS; with `is_behind_proxy` a proxy in front of them does. `authorities` is the file of the
    certificate authorities that the platform's clients trust for its servers, None for those that the system trusts.
    """

    address: str = _LOOPBACK
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None
    is_behind_proxy: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Listening":
        """Read the variables. Raises ValueError naming one that cannot be used."""
        address = environment.get("MLOPS_LISTEN_ADDRESS") or cls.address
        try:
            ip_address(address)
        except ValueError as error:
            raise ValueError(
                f"MLOPS_LISTEN_ADDRESS={address!r} is no IP address: set it to one of this machine, or unset it for {_LOOPBACK}."
            ) from error
        certificate, key = _file(environment, "MLOPS_TLS_CERTIFICATE"), _file(environment, "MLOPS_TLS_KEY")
        if (certificate is None) != (key is None):
            raise ValueError("MLOPS_TLS_CERTIFICATE and MLOPS_TLS_KEY belong together: set both, or neither.")
        return cls(
            address=address,
            names=tuple(environment.get("MLOPS_SERVER_NAMES", "").lower().split()),
            certificate=certificate,
            key=key,
            authorities=_file(environment, "MLOPS_TLS_CA"),
            is_behind_proxy=read_switch(environment, "MLOPS_TLS_PROXY", cls.is_behind_proxy),
        )

    def variables(self) -> dict[str, str]:
        """The variables that `from_environment` reads this from."""
        return {
            "MLOPS_LISTEN_ADDRESS": self.address,
            "MLOPS_SERVER_NAMES": " ".join(self.names),
            "MLOPS_TLS_CERTIFICATE": str(self.certificate or ""),
            "MLOPS_TLS_KEY": str(self.key or ""),
            "MLOPS_TLS_CA": str(self.authorities or ""),
            "MLOPS_TLS_PROXY": "on" if self.is_behind_proxy else "off",
        }

    @property
    def is_on_loopback(self) -> bool:
        """Whether nobody on another machine reaches the servers."""
        return ip_address(self.address).is_loopback

    @property
    def has_tls(self) -> bool:
        """Whether the servers speak TLS themselves."""
        return self.certificate is not None

    @property
    def host(self) -> str:
        """The name or address by which the platform connects to its own servers."""
        if self.has_tls and self.names:
            return self.names[0]  # as the certificate has it
        address = ip_address(self.address)
        if address.is_unspecified:
            return _LOOPBACK if address.version == 4 else "::1"
        return self.address

    @property
    def own_names(self) -> tuple[str, ...]:
        """All names and addresses under which the servers answer, as an address has them. Under another one a page elsewhere may ask."""
        address = () if ip_address(self.address).is_unspecified else (self.address,)
        return tuple(dict.fromkeys([*LOOPBACK_NAMES, *map(bracketed, (*address, *self.names))]))

    def scheme(self, name: str) -> str:
        """How the pages of the servers are addressed under a name: a proxy that ends TLS is asked under none of the loopback ones."""
        is_secure = self.has_tls or (self.is_behind_proxy and name not in LOOPBACK_NAMES)
        return "https" if is_secure else "http"

    def url(self, port: int) -> str:
        """The address of a server that speaks HTTP."""
        return f"{self.scheme(_LOOPBACK)}://{self.authority(port)}"

    def authority(self, port: int) -> str:
        """Host and port as an address has them."""
        return f"{bracketed(self.host)}:{port}"


def bracketed(host: str) -> str:
    """The host as an address has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _file(environment: Mapping[str, str], variable: str) -> Path | None:
    text = environment.get(variable)
    # Where it is, not what a link points to now: certbot renews by another target.
    return Path(text).expanduser().absolute() if text else None
