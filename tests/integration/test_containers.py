"""The images: their file by hadolint, built twice; that of the servers started, swapped and drained under load by podman."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from containers import (
    ROOT,
    build,
    build_as,
    give_to_image,
    layers,
    podman_environment,
    run_command,
    size_in_megabytes,
    user_of_image,
)
from online_server import TOKEN, OnlineServer, flights, load
from waiting import wait_for

from mlops_assets.local.environment import scripts_directory

MAXIMUM_MEGABYTES = 400


def test_hadolint_finds_no_fault() -> None:
    files = (ROOT / "Containerfile", ROOT / "tests" / "server_images" / "Containerfile")
    linted = subprocess.run([scripts_directory() / "hadolint", *files], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_no_image_has_what_an_installation_or_a_developer_keeps() -> None:
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    assert {".env", ".git", ".mlops", ".venv"} <= set(ignored)


@pytest.mark.long
@pytest.mark.parametrize("target", ["serving", "code"])
def test_an_image_has_the_same_layers_again(target: str) -> None:
    # Both without a cache: its layers may have Debian's packages of another day.
    first, second = (build_as(f"localhost/mlops-{target}:{name}", target, "--no-cache") for name in ("first", "second"))
    assert layers(second) == layers(first)


class ServerInContainer(OnlineServer):
    """The server of the image, on a state folder of the test. Nothing ships its spool."""

    def start(self) -> None:
        give_to_image(self.settings.home)
        variables = {
            "MLOPS_SERVING_PORT": str(self.settings.serving_port),
            "MLOPS_SERVING_PROCESSES": str(self.settings.serving_processes),
            "MLOPS_SERVING_TOKEN": TOKEN,
        }
        self.process = subprocess.Popen(
            run_command(build("serving"), self.settings.home, variables),
            env=podman_environment(),
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._started.append(self.process)

    def promote(self, version: int) -> None:
        with user_of_image():
            super().promote(version)

    def reports(self) -> list[Any]:
        """The processes that answer: what they report names numbers of processes of the container."""
        try:
            return list({self.get("/readyz").json()["pid"] for _ in range(20)})
        except requests.ConnectionError:
            return []

    def versions(self) -> set[int | None]:
        return {self.post(self.row).json().get("model_version") for _ in range(20)}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerInContainer]:
    home = Path(tempfile.mkdtemp(prefix="container.", dir="/tmp"))
    home.chmod(0o755)
    with ServerInContainer(home, flights(2)) as server:
        server.promote(1)
        wait_for(lambda: server.versions() == {1})
        yield server
    shutil.rmtree(home)


@pytest.mark.long
def test_the_image_of_servers_serves_is_swapped_and_drained_under_load(server: ServerInContainer) -> None:
    assert size_in_megabytes(build("serving")) < MAXIMUM_MEGABYTES
    before = {record.prediction_id for record in server.records()}
    with load(server, callers=4) as found:
        wait_for(lambda: found.versions[1] > 100)
        server.promote(2)
        wait_for(lambda: found.versions[2] > 100)
        assert (set(found.statuses), found.errors) == ({200}, [])
        in_flight = re.search(r"^mlops_requests_in_flight (\S+)$", server.get("/metrics").text, flags=re.MULTILINE)
        assert in_flight is not None, "what the autoscaler counts"
        # As Kubernetes ends a pod: what was accepted is answered, and nobody comes in any more.
        server.process.terminate()
        assert server.process.wait(60) == 0
    assert set(found.statuses) == {200}
    # Without another pod those who connect anew are refused; whoever was let in before has an answer.
    assert all("refused" in error or "reset" in error for error in found.errors), found.errors
    kept = {record.prediction_id for record in server.records()}
    assert kept - before == set(found.prediction_ids)
