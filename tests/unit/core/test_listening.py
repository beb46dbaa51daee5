from pathlib import Path

import pytest

from mlops_assets.core.listening import Listening

VARIABLES = {
    "MLOPS_LISTEN_ADDRESS": "10.0.0.5",
    "MLOPS_SERVER_NAMES": "MLOps.example.org other.example.org",
    "MLOPS_TLS_CERTIFICATE": "/etc/tls/server.pem",
    "MLOPS_TLS_KEY": "/etc/tls/server.key",
    "MLOPS_TLS_CA": "/etc/tls/ca.pem",
    "MLOPS_TLS_PROXY": "on",
}


def test_every_variable_is_read_and_given_on() -> None:
    listening = Listening.from_environment(VARIABLES)
    assert listening == Listening(
        address="10.0.0.5",
        names=("mlops.example.org", "other.example.org"),
        certificate=Path("/etc/tls/server.pem"),
        key=Path("/etc/tls/server.key"),
        authorities=Path("/etc/tls/ca.pem"),
        is_behind_proxy=True,
    )
    assert Listening.from_environment(listening.variables()) == listening
    assert Listening.from_environment({}) == Listening() == Listening.from_environment(Listening().variables())


def test_a_link_stays_one_since_a_renewal_changes_where_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "fullchain.pem"
    link.symlink_to(tmp_path / "fullchain1.pem")
    listening = Listening.from_environment({"MLOPS_TLS_CERTIFICATE": str(link), "MLOPS_TLS_KEY": "~/key.pem"})
    assert (listening.certificate, listening.key) == (link, Path.home() / "key.pem")


@pytest.mark.parametrize("variables", [{"MLOPS_LISTEN_ADDRESS": "mlops.example.org"}, {"MLOPS_TLS_CERTIFICATE": "/x"}])
def test_what_cannot_be_used_names_the_variable(variables: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(variables))):
        Listening.from_environment(variables)


@pytest.mark.parametrize(
    ("listening", "url"),
    [
        (Listening(), "http://127.0.0.1:3000"),
        (Listening(address="10.0.0.5", names=("a.example",), is_behind_proxy=True), "http://10.0.0.5:3000"),
        (Listening(address="0.0.0.0", is_behind_proxy=True), "http://127.0.0.1:3000"),
        (Listening(address="::", certificate=Path("/c"), key=Path("/k")), "https://[::1]:3000"),
        (
            Listening(address="0.0.0.0", names=("a.example", "b"), certificate=Path("/c"), key=Path("/k")),
            "https://a.example:3000",
        ),
    ],
)
def test_the_platform_asks_by_the_name_in_the_certificate_or_the_address(listening: Listening, url: str) -> None:
    assert listening.url(3000) == url


def test_own_names_are_those_of_loopback_the_address_and_what_is_named() -> None:
    loopback = ("127.0.0.1", "localhost", "[::1]")
    assert Listening().own_names == loopback
    assert Listening(address="fd00::5", names=("a.example",)).own_names == (*loopback, "[fd00::5]", "a.example")
    assert Listening(address="0.0.0.0").own_names == loopback
