import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.listening import Listening
from mlops_assets.core.settings import Settings
from mlops_assets.local import preflight
from mlops_assets.local.services import Service


def service(port: int | None) -> Service:
    return Service(name="mlflow", log=Path("/srv/log"), port=port, port_variable="MLOPS_MLFLOW_PORT", url=None)


def test_the_state_folder_is_created() -> None:
    # Not pytest's own folder: its path may be longer than a Unix socket may have.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        home = Path(folder) / "new" / "home"
        preflight.check_home(Settings(home=home), 1)
        assert list(home.iterdir()) == []


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"has \d+\.\d\d GB left; the stack needs at least 1000000000 GB") as raised:
        preflight.check_home(Settings(home=tmp_path), 10**18)
    assert "MLOPS_HOME" in raised.value.remedy


def test_a_path_too_long_for_a_socket() -> None:
    with pytest.raises(StackError, match="too long for a Unix socket") as raised:
        preflight.check_home(Settings(home=Path("/tmp") / ("x" * 100)), 1)
    assert raised.value.remedy == "Set MLOPS_HOME to a shorter path."


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StackError, match="cannot be written: Not a directory"):
        preflight.check_home(Settings(home=tmp_path / "f" / "h"), 1)


def test_a_free_port_and_a_server_without_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    preflight.check_port(Listening(), service(port))
    preflight.check_port(Listening(), service(None))


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(StackError, match=r"192\.0\.2\.1 is no address of this machine") as raised:
        preflight.check_port(Listening(address="192.0.2.1"), service(1))
    assert "MLOPS_LISTEN_ADDRESS" in raised.value.remedy


def test_a_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port}, which mlflow needs, is taken by process {os.getpid()}") as raised:
            preflight.check_port(Listening(), service(port))
    assert "MLOPS_MLFLOW_PORT=" in raised.value.remedy


def test_a_port_is_free_as_soon_as_its_killed_holder_is_gone() -> None:
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    port = int(holder.stdout.readline())
    with pytest.raises(StackError, match=f"taken by process {holder.pid}"):
        preflight.check_port(Listening(), service(port))
    holder.kill()
    preflight.check_port(Listening(), service(port))
    holder.wait()
