"""A real cluster of three NATS servers on this machine. No tests here."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from waiting import wait_for

from mlops_assets.local.environment import scripts_directory

PASSWORD = "cluster-password"


class NatsCluster:
    """Three servers; `url` names all of them, and has each stream on all."""

    def __init__(self, folder: Path):
        self._folder = folder
        with ExitStack() as stack:
            listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
            ports = [listener.getsockname()[1] for listener in listeners]
        self.ports, self._routes = ports[:3], ports[3:]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.url = f"nats://platform:{PASSWORD}@{hosts}?replicas=3"
        self._servers: dict[str, subprocess.Popen] = {}

    def start(self, name: str) -> None:
        """Start the server `name`: n0, n1 or n2."""
        number = int(name[1:])
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        configuration = self._folder / f"{name}.conf"
        configuration.write_text(
            f'server_name: {name}\nlisten: "127.0.0.1:{self.ports[number]}"\n'
            f'authorization {{ user: platform, password: "{PASSWORD}" }}\n'
            f'jetstream {{ store_dir: "{self._folder}/{name}" }}\n'
            f'cluster {{ name: mlops, listen: "127.0.0.1:{self._routes[number]}", routes: [{routes}] }}\n'
        )
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [str(scripts_directory() / "nats-server"), "--config", str(configuration)]
            self._servers[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """End a server as SIGKILL does."""
        self._servers[name].kill()
        self._servers[name].wait()

    def kill_all(self) -> None:
        for name in self._servers:
            self.kill(name)

    def answers(self) -> bool:
        for port in self.ports:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
        return True


@contextmanager
def nats_cluster(folder: Path) -> Iterator[NatsCluster]:
    """A running cluster with its state in `folder`."""
    cluster = NatsCluster(folder)
    try:
        for number in range(3):
            cluster.start(f"n{number}")
        wait_for(cluster.answers)
        yield cluster
    finally:
        cluster.kill_all()
