"""The storage of searches: a database of their own on the platform's Postgres, so that trials outlive the process and the host."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from mlops_assets.core.settings import SEARCH_DATABASE, Settings

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@contextlib.contextmanager
def search_storage(settings: Settings, study: str) -> "Iterator[BaseStorage]":
    """Optuna's storage, with the sole right to work on `study` while the context lasts.

    The right is a Postgres advisory lock, which the server takes back when the process dies: trials that are still running
    then are those of a dead process.
    """
    import psycopg2
    from optuna.storages import RDBStorage

    connection = psycopg2.connect(settings.postgres_connection_string(SEARCH_DATABASE))
    storage = None
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (study,))
            # Two processes that create the tables at once would collide.
            cursor.execute("SELECT pg_advisory_lock(hashtextextended('tables', 0))")
            storage = RDBStorage(settings.sqlalchemy_url(SEARCH_DATABASE))
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended('tables', 0))")
        yield storage
    finally:
        if storage is not None:
            storage.engine.dispose()
        connection.close()


def ended_studies(settings: Settings, *, before: datetime) -> list[str]:
    """The studies whose last trial began or ended before a moment, in the order of their names."""
    import psycopg2

    address = settings.postgres_connection_string(SEARCH_DATABASE)
    with contextlib.closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('trials')")
        if cursor.fetchone() == (None,):
            return []  # nobody has searched yet
        # Optuna writes times without a zone, those of this machine.
        cursor.execute(
            "SELECT study_name FROM studies JOIN trials USING (study_id) GROUP BY 1 "
            "HAVING max(coalesce(datetime_complete, datetime_start)) < %s ORDER BY 1",
            (before.astimezone().replace(tzinfo=None),),
        )
        return [name for (name,) in cursor.fetchall()]


def delete_study(settings: Settings, study: str) -> None:
    """Delete a study with its trials. A search that works on it is waited for."""
    import optuna

    with search_storage(settings, study) as storage:
        optuna.delete_study(study_name=study, storage=storage)
