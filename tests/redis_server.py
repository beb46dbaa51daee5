"""The online stores that tests run on. Redis is `MLOPS_REDIS_URL`, or a `redis-server` started here; without either, its tests are left out."""

import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

GIVEN_REDIS = os.environ.get("MLOPS_REDIS_URL")
REDIS_SERVER = shutil.which("redis-server")
STORES = ["lmdb", "redis"] if GIVEN_REDIS or REDIS_SERVER else ["lmdb"]
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
