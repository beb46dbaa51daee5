"""All containers of the compose file, brought up by podman-compose on images that are made here."""

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests
from containers import ROOT, build, build_server, give_to_image, podman, podman_environment
from ports import free_ports
from waiting import wait_for

from mlops_assets.local.environment import scripts_directory

PORTS = ("DAGSTER_PORT", "VIEWERS_PORT", "MLFLOW_PORT", "ONLINE_PORT", "NATS_PORT")
SERVERS = ("postgres", "nats", "redis", "files", "daemon", "code-location", "operators", "viewers", "mlflow", "online")
"""The services that say whether they are well."""

DAEMON = "mlops-daemon"
_COMMAND_SECONDS = 1800


@dataclass
class Composition:
    """The containers of a folder with the compose file, its `.env` and its secrets."""

    folder: Path
    variables: dict[str, str]

    def compose(self, *arguments: str) -> str:
        """What a command of podman-compose prints; what it and the containers said where it fails."""
        ended = subprocess.run(
            [scripts_directory() / "podman-compose", *arguments],
            cwd=self.folder,
            env=podman_environment(),
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{' '.join(arguments)}\n{ended.stdout[-6000:]}\n{ended.stderr[-6000:]}\n{self.logs()}"
        return ended.stdout

    def mlops(self, *arguments: str) -> str:
        """What a command of the platform prints in a container of its own, without its notes."""
        return self.compose("--profile", "commands", "run", "--rm", "-T", "commands", "mlops", *arguments)

    def port(self, name: str) -> int:
        """A port of 127.0.0.1, by its variable."""
        return int(self.variables[name])

    def containers(self) -> list[dict[str, Any]]:
        """What `podman ps` says of all containers."""
        return list(json.loads(podman("ps", "--all", "--format", "json")))

    def logs(self) -> str:
        """The last lines of every container."""
        return "\n".join(
            f"== {each['Names'][0]}: {each['State']} {each['ExitCode']}\n{podman_output('logs', '--tail', '15', each['Id'])}"
            for each in self.containers()
        )

    def ask_online(self, path: str, body: Any = None) -> requests.Response:
        """Ask the online server as an application on this machine does."""
        headers = {"Authorization": f"Bearer {self.variables['MLOPS_SERVING_TOKEN']}"}
        address = f"http://127.0.0.1:{self.port('ONLINE_PORT')}{path}"
        method = "GET" if body is None else "POST"
        return requests.request(method, address, json=body, headers=headers, timeout=30)

    def start(self) -> None:
        """Start all containers, and wait until each one that serves is healthy."""
        self.compose("up", "--detach", "--no-build")
        for name in SERVERS:
            container = DAEMON if name == "daemon" else f"mlops_{name}_1"
            try:
                # Without systemd nobody else asks.
                wait_for(partial(_is_healthy, container), every=2)
            except AssertionError as error:
                raise AssertionError(f"{name} is not healthy\n{self.logs()}") from error


def podman_output(*arguments: str) -> str:
    """What podman prints on both streams."""
    command = ["podman", *arguments]
    return subprocess.run(
        command, env=podman_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout


def _is_healthy(container: str) -> bool:
    command = ["podman", "healthcheck", "run", container]
    return subprocess.run(command, env=podman_environment(), capture_output=True, check=False).returncode == 0


def _variables(images: dict[str, str]) -> dict[str, str]:
    example = (ROOT / "deployments" / "compose" / ".env.example").read_text()
    named = dict(line.split("=", 1) for line in example.splitlines() if re.match(r"\w+=", line))
    return {
        **{name: value or f"a{secrets.token_hex(16)}" for name, value in named.items()},
        **images,
        **{name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)},
    }


@contextmanager
def running_composition(folder: Path) -> Iterator[Composition]:
    """The platform in containers, as docs/containers.md starts it. Containers, networks and volumes are removed afterwards."""
    servers = {f"{name.upper()}_IMAGE": build_server(name) for name in ("postgres", "nats", "redis", "files")}
    images = {"CODE_IMAGE": build("code"), "SERVING_IMAGE": build("serving"), **servers}
    shutil.copytree(
        ROOT / "deployments" / "compose", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".env", "secrets")
    )
    variables = _variables(images)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    (folder / "secrets").mkdir(mode=0o700)
    for name in ("signing_key", "access_token"):
        (folder / "secrets" / name).write_text(f"{secrets.token_urlsafe(32)}\n")
        (folder / "secrets" / name).chmod(0o400)
    give_to_image(folder / "secrets")
    composition = Composition(folder, variables)
    try:
        composition.start()
        yield composition
    finally:
        composition.compose("--profile", "commands", "down", "--volumes")
