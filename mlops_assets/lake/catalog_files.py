"""Files that the lake's catalog names, and the place that they are in. Read and written in Postgres, without DuckDB."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlops_assets.lake.tables import LakeError

if TYPE_CHECKING:
    import psycopg2.extensions

    from mlops_assets.lake.lake import Lake

_KEEP = "SELECT pg_advisory_lock_shared(hashtextextended('lake files', 0))"
_REMOVE = "SELECT pg_advisory_lock(hashtextextended('lake files', 0))"

_OF_OTHERS = "SELECT EXISTS (SELECT FROM ducklake_data_file WHERE NOT path_is_relative)"
_FILES = """
WITH files AS (SELECT table_id, path, path_is_relative FROM ducklake_data_file
               UNION ALL SELECT table_id, path, path_is_relative FROM ducklake_delete_file)
SELECT DISTINCT CASE WHEN f.path_is_relative AND t.path_is_relative AND s.path_is_relative THEN s.path || t.path || f.path END, f.path
FROM files f JOIN ducklake_table t USING (table_id) JOIN ducklake_schema s USING (schema_id) ORDER BY 1
"""
DATA_PATH = "SELECT value FROM ducklake_metadata WHERE key = 'data_path' AND scope IS NULL"
"""Query for the folder of the lake, as its catalog names it."""


def keep_files(catalog: str) -> contextlib.AbstractContextManager[None]:
    """Let nobody remove files of the lake inside the block. `catalog` is the libpq string of its database."""
    return _locked(catalog, _KEEP)


@contextlib.contextmanager
def may_remove_files(catalog: str) -> Iterator[None]:
    """Have the right to remove files of the lake for the block, once nobody keeps them or removes some any more.

    Raises LakeError for a branch, whose catalog names files of another lake.
    """
    import psycopg2

    with contextlib.closing(psycopg2.connect(catalog)) as connection, connection.cursor() as cursor:
        cursor.execute(_OF_OTHERS)
        [(is_branch,)] = cursor.fetchall()
    if is_branch:
        raise LakeError("This lake is a branch of another one, whose files it names: nobody removes files of a branch.")
    with _locked(catalog, _REMOVE):
        yield


@contextlib.contextmanager
def _locked(catalog: str, statement: str) -> Iterator[None]:
    import psycopg2

    with contextlib.closing(psycopg2.connect(catalog)) as connection:
        connection.autocommit = True  # an open transaction would keep Postgres from tidying up
        with connection.cursor() as cursor:
            cursor.execute(statement)
        yield


def named_files(cursor: "psycopg2.extensions.cursor") -> list[str]:
    """The files of all snapshots, relative to the folder of the lake, as the transaction of `cursor` sees the catalog.

    Raises LakeError when one is elsewhere.
    """
    cursor.execute(_FILES)
    rows: list[tuple[str | None, str]] = cursor.fetchall()
    for relative, path in rows:
        if relative is None:
            raise LakeError(f"The lake refers to a file outside of its folder: {path}")
    return [str(relative) for relative, _ in rows]


def follow_files(lake: "Lake") -> bool:
    """Let the catalog name the place of the files of `lake` when they were moved there. Returns whether it named another one.

    Only when every file is there: two installations with one Postgres must not take the catalog from each other. Raises LakeError
    otherwise.
    """
    import psycopg2

    with contextlib.closing(psycopg2.connect(lake.catalog)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(DATA_PATH)
        [former] = cursor.fetchone() or [None]
        current = lake.data_path
        if former is None or former == current:
            return False
        if missing := lake.missing_files(named_files(cursor)):
            raise LakeError(
                f"The lake's catalog belongs to {former}, and {len(missing)} of its files are not in {current}, such as {missing[0]}."
            )
        cursor.execute("UPDATE ducklake_metadata SET value = %s WHERE key = 'data_path' AND scope IS NULL", [current])
        return True
