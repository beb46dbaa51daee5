"""A branch of a lake: another catalog that names the same files, so that it has all tables and snapshots without a copy of data.

What is written to a branch goes to files and a catalog of its own. Read and written in Postgres, without DuckDB.
"""

import contextlib
from itertools import groupby
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING

from mlops_assets.lake.catalog_files import DATA_PATH

if TYPE_CHECKING:
    import psycopg2.extensions

    from mlops_assets.lake.lake import Lake

_MEMORY_BYTES = 32 << 20
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = current_schema() AND c.relname LIKE 'ducklake\\_%' AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
_NAME_FILES = """
UPDATE {files} f SET path_is_relative = false, path = CASE WHEN t.path_is_relative THEN
    CASE WHEN s.path_is_relative THEN %s || s.path ELSE s.path END || t.path ELSE t.path END || f.path
FROM ducklake_table t JOIN ducklake_schema s USING (schema_id) WHERE t.table_id = f.table_id AND f.path_is_relative
"""

_OF_OTHERS = """
SELECT path FROM ducklake_data_file WHERE NOT path_is_relative
UNION SELECT path FROM ducklake_delete_file WHERE NOT path_is_relative ORDER BY path
"""


def branch_catalog(source: str, target: str, folder: Path) -> None:
    """Fill the empty database `target` with a branch of the catalog in `source`, both libpq strings, that writes files into `folder`.

    The catalog is read as it is at one moment, by a transaction that can write nothing.
    """
    import psycopg2
    from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ

    with contextlib.closing(psycopg2.connect(source)) as origin:
        origin.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
        with origin.cursor() as read:
            copy_catalog(read, target, folder)


def copy_catalog(read: "psycopg2.extensions.cursor", target: str, folder: Path) -> None:
    """Fill the empty database `target` with a branch of the catalog as the transaction of `read` sees it.

    Whoever removes files of the lake must be kept from it while the branch is read (`keep_files`, or `LakePolicy.branched`). Nobody may
    remove files of a branch: those of its first snapshot are the lake's. `may_remove_files` gives nobody the right.
    """
    import psycopg2

    with contextlib.closing(psycopg2.connect(target)) as branch, branch, branch.cursor() as written:
        _copy_tables(read, written)
        written.execute(DATA_PATH)
        [(former,)] = written.fetchall()
        for files in ("ducklake_data_file", "ducklake_delete_file"):
            written.execute(_NAME_FILES.format(files=files), [former])
        # Files that the lake will remove are not the branch's to remove.
        written.execute("DELETE FROM ducklake_files_scheduled_for_deletion")
        written.execute("UPDATE ducklake_metadata SET value = %s WHERE key = 'data_path' AND scope IS NULL", [f"{folder}/"])


def lost_files(lake: "Lake") -> list[str]:
    """The files that the catalog of a branch names in the lake that it is of, and that are not there any more."""
    with lake.catalog_cursor() as cursor:
        cursor.execute(_OF_OTHERS)
        names = [name for (name,) in cursor.fetchall()]
    if lake.branched is None:
        return [name for name in names if not Path(name).exists()]
    present = {f"{lake.branched.url}/{name}" for name in lake.branched.objects()}
    return [name for name in names if name not in present]


def _copy_tables(read: "psycopg2.extensions.cursor", written: "psycopg2.extensions.cursor") -> None:
    from psycopg2 import sql

    read.execute(_COLUMNS)
    for table, rows in groupby(read.fetchall(), key=lambda row: row[0]):
        columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for _, name, kind in rows)
        written.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(table), columns))
        with SpooledTemporaryFile(_MEMORY_BYTES) as content:
            read.copy_expert(sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(table)), content)
            content.seek(0)
            written.copy_expert(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(table)), content)
