"""The online stores that tests run on. Redis is `MLOPS_REDIS_URL`, or a `redis-server` started here; without either, its tests are left out.

A cluster is three nodes started here.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from waiting import wait_for

GIVEN_REDIS = os.environ.get("MLOPS_REDIS_URL")
REDIS_SERVER = shutil.which("redis-server")
STORES = [
    "lmdb",
    *(["redis"] if GIVEN_REDIS or REDIS_SERVER else []),
    *([pytest.param("redis_cluster", marks=pytest.mark.long)] if REDIS_SERVER else []),
]
if "redis" not in STORES:
    warnings.warn("No tests on Redis: no command `redis-server` (Debian: apt-get install redis-server)", stacklevel=1)


@contextmanager
def running_redis() -> Iterator[str]:
    """Address of a real Redis."""
    if GIVEN_REDIS:
        yield GIVEN_REDIS
        return
    assert REDIS_SERVER is not None
    home = Path(tempfile.mkdtemp(prefix="redis.", dir="/tmp"))
    socket = home / "redis.sock"
    command = [REDIS_SERVER, "--port", "0", "--unixsocket", str(socket), "--dir", str(home), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield f"unix://{socket}"
    server.terminate()
    server.wait()
    shutil.rmtree(home)


@contextmanager
def saving_redis(folder: Path) -> Iterator[tuple[int, str]]:
    """The process and the address of a Redis that saves what it has in `folder` a second after a change."""
    assert REDIS_SERVER is not None
    socket = folder / "redis.sock"
    command = [REDIS_SERVER, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "1", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(redis.Redis(unix_socket_path=str(socket))))
        yield server.pid, f"unix://{socket}"
    finally:
        server.kill()
        server.wait()


_SLOTS = 16384


@contextmanager
def running_redis_cluster() -> Iterator[str]:
    """Address of a node of a real cluster of three, each with a third of the slots."""
    assert REDIS_SERVER is not None
    home = Path(tempfile.mkdtemp(prefix="redis_cluster.", dir="/tmp"))
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        ports = [listener.getsockname()[1] for listener in listeners]
    servers = []
    for port, bus in zip(ports[:3], ports[3:], strict=True):
        folder = home / str(port)
        folder.mkdir()
        command = [
            REDIS_SERVER,
            "--port",
            str(port),
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            str(bus),
            "--dir",
            str(folder),
        ]
        servers.append(subprocess.Popen([*command, "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL))
    nodes = [redis.Redis(port=port) for port in ports[:3]]
    try:
        wait_for(lambda: all(_answers(node) for node in nodes))
        bounds = [0, _SLOTS // 3, 2 * _SLOTS // 3, _SLOTS]
        for number, node in enumerate(nodes):
            node.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for port, bus in zip(ports[1:3], ports[4:], strict=True):
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        wait_for(lambda: all(node.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for node in nodes))
        yield f"redis+cluster://127.0.0.1:{ports[0]}"
    finally:
        for server in servers:
            server.kill()
            server.wait()
        shutil.rmtree(home)


def _answers(node: redis.Redis) -> bool:
    try:
        return node.ping()
    except redis.ConnectionError:
        return False
