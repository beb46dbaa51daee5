"""Servers that somebody else runs, none of which answers. Those of a running stack are asked in `tests/integration/test_stack.py`."""

from pathlib import Path

import pytest
from ports import free_ports

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local import control, servers_elsewhere
from mlops_assets.local.services import ONLINE


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    dagster, mlflow, serving = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    return Settings(home=tmp_path, dagster_server=dagster, mlflow_server=mlflow, serving_server=serving)


def test_who_does_not_answer_is_named_with_its_address(settings: Settings) -> None:
    with pytest.raises(StackError, match=f"online does not answer at {settings.serving_server}"):
        servers_elsewhere.wait(settings, [ONLINE], seconds=0)
    assert {entry["state"] for entry in control.status(settings)} == {"stopped"}


def test_what_starts_or_stops_servers_is_refused(settings: Settings) -> None:
    for command in (
        lambda: control.up(settings, lambda *_: None),
        lambda: control.down(settings),
        lambda: control.reload(settings),
    ):
        with pytest.raises(StackError, match="MLOPS_DAGSTER_URL names others"):
            command()
    assert not (settings.home / "supervisord.conf").exists()


def test_without_an_address_the_stack_is_that_of_this_machine(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    servers_elsewhere.refuse(settings, "mlops up")
    assert not servers_elsewhere.are_elsewhere(settings)
