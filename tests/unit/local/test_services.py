"""The servers of an installation."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.core.settings import Settings
from mlops_assets.local.services import NATS, POSTGRES, services

HERE = Settings(home=Path("/srv/mlops"))


@pytest.mark.parametrize(
    ("elsewhere", "left_out"),
    [
        ({"postgres_url": "postgresql://host/db"}, {POSTGRES}),
        ({"nats_url": "nats://host:4222"}, {NATS}),
        ({"postgres_url": "postgresql://host/db", "nats_url": "nats://host:4222"}, {POSTGRES, NATS}),
    ],
)
def test_what_runs_elsewhere_is_not_started_here(elsewhere: dict[str, str], left_out: set[str]) -> None:
    names = {service.name for service in services(HERE)}
    assert names - {service.name for service in services(replace(HERE, **elsewhere))} == left_out  # type: ignore[arg-type]


def test_every_port_can_be_changed_and_every_server_has_a_log_of_its_own() -> None:
    servers = services(HERE)
    assert len({service.log for service in servers}) == len(servers)
    ports = {service.port_variable: service.port for service in servers if service.port is not None}
    assert None not in ports
    moved = Settings.from_environment(
        {"MLOPS_HOME": "/srv/mlops", **{str(name): str(port + 10_000) for name, port in ports.items()}}
    )
    assert {service.port_variable: service.port for service in services(moved) if service.port is not None} == {
        name: port + 10_000 for name, port in ports.items()
    }
    assert all(str(service.port) in service.url for service in services(moved) if service.url)
