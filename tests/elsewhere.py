"""All servers of the state elsewhere, for one command: `python tests/elsewhere.py COMMAND ...` runs it with them in its environment.

SeaweedFS, a Redis cluster and a NATS cluster of three each, and a Postgres of Debian on TCP with a password and TLS. Afterwards it looks whether
files of the state, or a password, are on the disk of the installation. `make demo-elsewhere` runs the demo so, `make chaos` disturbs such an
installation.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg2
from certificates import Authority
from nats_cluster import PASSWORD, nats_cluster
from object_storage import SECRET, ObjectStore, object_store
from ports import free_ports
from redis_server import running_redis_cluster
from waiting import wait_for

from mlops_assets.core.settings import Settings

_POSTGRES_PASSWORD = "canary of Postgres"
_SECRETS = (_POSTGRES_PASSWORD, "canary%20of%20Postgres", PASSWORD, SECRET)
_WITH_SECRETS = {"postgres_password", ".env"}
"""Files of an installation that are there to hold one."""


@contextmanager
def postgres_with_tls(folder: Path) -> Iterator[str]:
    """Address of a Postgres on TCP that wants a password, and TLS."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    user = "postgres" if os.getuid() == 0 else None
    authority = Authority(folder / "authority")
    certificate, key, _ = authority.issue("server", "127.0.0.1")
    (folder / "password").write_text(_POSTGRES_PASSWORD)
    data = folder / "data"
    data.mkdir()
    folder.chmod(0o755)
    for path in (data, key, folder / "password"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        if user:
            shutil.chown(path, user, user)
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        initialise = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run(initialise, user=user, cwd=folder, check=True, stdout=log)
        # Nobody without TLS, and no door but TCP.
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        [port] = free_ports(1)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
        }
        command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        stack.callback(server.wait)
        # Not by SIGTERM, which waits until every client has gone: a test that asked it keeps its connections.
        stack.callback(server.send_signal, signal.SIGINT)
        address = f"postgresql://postgres:canary%20of%20Postgres@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={authority.path}"
        wait_for(lambda: _answers(address))
        yield address


def _answers(address: str) -> bool:
    try:
        psycopg2.connect(address).close()
    except psycopg2.OperationalError:
        return False
    return True


def find_left(settings: Settings) -> list[str]:
    """The files that should be elsewhere, or hold a password."""
    files = [path for path in settings.home.rglob("*") if path.is_file() and not path.is_symlink()]
    local = [path for path in files if path.suffix == ".parquet" and path.is_relative_to(settings.lake_directory)]
    local += [path for path in files if path.is_relative_to(settings.mlflow_artifact_directory) or path.suffix == ".mdb"]
    telling = [
        path for path in files if path.name not in _WITH_SECRETS and any(s.encode() in path.read_bytes() for s in _SECRETS)
    ]
    return [str(path.relative_to(settings.home)) for path in (*local, *telling)]


@contextmanager
def servers_elsewhere() -> Iterator[tuple[dict[str, str], ObjectStore]]:
    """The servers, until the end of the block: the variables that name them, and the one that keeps files."""
    with ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}.", dir="/tmp"))) for name in ("pg", "s3", "nats")
        ]
        store: ObjectStore = stack.enter_context(object_store(folders[1]))
        variables = {
            "MLOPS_POSTGRES_URL": stack.enter_context(postgres_with_tls(folders[0])),
            "MLOPS_STORAGE": f"s3://{store.bucket}/demo",
            "MLOPS_NATS_URL": stack.enter_context(nats_cluster(folders[2])).url,
            "MLOPS_REDIS_URL": stack.enter_context(running_redis_cluster()),
            **store.environment,
        }
        yield variables, store


def main(command: list[str]) -> int:
    """Run `command`, then stop the stack. Returns its exit code, or 1 when something was left."""
    with servers_elsewhere() as (variables, store):
        os.environ.update(variables)
        settings = Settings.from_environment()
        try:
            code = subprocess.run(command, check=False).returncode
        finally:
            subprocess.run([Path(sys.executable).with_name("mlops"), "down"], check=False)
        parts = sorted({name.split("/")[1] for name in store.names("demo/")})
        left = find_left(settings)
        sys.stdout.write(f"In the object store: {', '.join(parts)}. On this disk, or with a password: {left or 'nothing'}.\n")
        return code or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
