"""Dumps of the platform's databases, all of one moment, by Postgres's own programs."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import DATABASES, LAKE_DATABASE, Settings
from mlops_assets.local import environment_owner, postgres

if TYPE_CHECKING:
    import psycopg2.extensions

_PATIENCE_SECONDS = 30.0
_ALL_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"


@dataclass(frozen=True)
class Moment:
    """One moment of all databases: the exported snapshot of each, and a cursor that reads it as it was then."""

    snapshots: dict[str, str]
    cursors: dict[str, "psycopg2.extensions.cursor"]

    @property
    def lake(self) -> "psycopg2.extensions.cursor":
        """The cursor that reads the catalog of the lake."""
        return self.cursors[LAKE_DATABASE]


@contextlib.contextmanager
def one_moment(settings: Settings) -> Iterator[Moment]:
    """Hold one moment of all databases for the block, while others go on writing.

    A server numbers the transactions of all of its databases in one row. Where the snapshots of all show the same ones as done, no
    transaction ended between the first and the last. Raises StackError when that does not happen within half a minute.
    """
    import psycopg2
    from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ

    deadline = time.monotonic() + _PATIENCE_SECONDS
    with contextlib.ExitStack() as stack:
        connections = {}
        for database in DATABASES:
            connection = psycopg2.connect(settings.postgres_connection_string(database))
            stack.callback(connection.close)
            connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
            connections[database] = connection
        while True:
            cursors = {database: connection.cursor() for database, connection in connections.items()}
            rows = {database: _row(cursor) for database, cursor in cursors.items()}
            if len({transactions for transactions, _ in rows.values()}) == 1:
                break
            if time.monotonic() > deadline:
                raise StackError(
                    f"The databases were written without a pause for {_PATIENCE_SECONDS:.0f} s: they have no moment in common.",
                    remedy="Try again when fewer runs are in progress.",
                )
            for connection in connections.values():
                connection.rollback()
        yield Moment({database: snapshot for database, (_, snapshot) in rows.items()}, cursors)


def _row(cursor: "psycopg2.extensions.cursor") -> tuple[str, str]:
    cursor.execute("SELECT pg_current_snapshot()::text, pg_export_snapshot()")
    [(transactions, snapshot)] = cursor.fetchall()
    return transactions, snapshot


def dump(settings: Settings, moment: Moment, folder: Path) -> None:
    """Write every database as it was at the `moment` into `folder`, a folder each with a file for each table."""
    for database in moment.snapshots:
        dump_database(settings, moment, database, folder, [f"--exclude-table=public.{environment_owner.TABLE}"])


def dump_database(settings: Settings, moment: Moment, database: str, folder: Path, options: Sequence[str]) -> None:
    """Write one database as it was at the `moment` into its folder in `folder`, by pg_dump with further `options`."""
    common = ["--format=directory", "--no-owner", "--no-privileges", "--no-sync", f"--snapshot={moment.snapshots[database]}"]
    _run(settings, "pg_dump", database, [*common, *options, f"--file={folder / database}"])


def restore(settings: Settings, folder: Path) -> None:
    """Fill the databases, which exist and are empty, with the dumps in `folder`."""
    for database in DATABASES:
        restore_database(settings, database, folder)


def restore_database(settings: Settings, database: str, folder: Path) -> None:
    """Fill one database, which exists and is empty, with its dump in `folder`."""
    _run(settings, "pg_restore", database, ["--no-owner", "--exit-on-error", "--jobs=2", str(folder / database)])


def filled_databases(settings: Settings) -> list[str]:
    """The databases that have tables."""
    return [database for database in DATABASES if postgres.query_value(settings, database, _ALL_TABLES)]


def _run(settings: Settings, program: str, database: str, arguments: list[str]) -> None:
    connection = settings.postgres_connection_string(database)
    command = [str(_executable(settings, program)), f"--dbname={connection}", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise StackError(
            f"{program} failed on the database {database}: {ended.stderr.strip()}",
            remedy="Correct the cause that it names, then try again. The wheel's programs know no TLS and no Postgres newer than themselves: "
            "for such a server install its client (Debian: apt-get install postgresql-client).",
        )


def _executable(settings: Settings, program: str) -> Path:
    """The program that suits the server: of the wheel, or for one elsewhere that of the PATH, unless it is older than the server."""
    of_wheel, of_path = postgres.executable().with_name(program), shutil.which(program)
    if settings.postgres_url is None or of_path is None:
        return of_wheel
    server = int(str(postgres.query_value(settings, LAKE_DATABASE, "SHOW server_version_num"))) // 10_000
    answer = subprocess.run([of_path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return Path(of_path) if found and int(found[1]) >= server else of_wheel
