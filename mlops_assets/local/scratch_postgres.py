"""A Postgres for a while: in a scratch folder, reached by its socket alone, gone when the block ends."""

import contextlib
import subprocess
import time
from collections.abc import Iterator

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.local import postgres

_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.05
# What it holds need not survive anything.
_OPTIONS = ("listen_addresses=", "max_connections=20", "unix_socket_permissions=0700", "fsync=off", "full_page_writes=off")


@contextlib.contextmanager
def scratch_postgres(settings: Settings) -> Iterator[None]:
    """Run a Postgres in the state folder of `settings`, with an empty database for the lake, for the block. Raises StackError."""
    postgres.initialise_data_directory(settings)
    directory = str(settings.postgres_directory)
    options = [word for option in _OPTIONS for word in ("-c", option)]
    command = [str(postgres.executable()), "-D", directory, "-k", directory, *options]
    log = settings.home / "postgres.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, user=postgres.user_for_supervisor(), cwd=directory
        ) as server,
    ):
        try:
            _create_database(settings, server)
            yield
        finally:
            server.terminate()
            try:
                # A connection that is still open would let it wait.
                server.wait(timeout=1)
            except subprocess.TimeoutExpired:
                server.kill()


def _create_database(settings: Settings, server: "subprocess.Popen[bytes]") -> None:
    import psycopg2

    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection = psycopg2.connect(settings.postgres_maintenance_connection_string())
        except psycopg2.OperationalError as error:
            if server.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                continue
            said = (settings.home / "postgres.log").read_text(errors="replace").strip()
            raise StackError(
                f"A Postgres for the comparison does not start: {said}", remedy="Free the disk or memory that it names."
            ) from error
        break
    with contextlib.closing(connection):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {LAKE_DATABASE} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
