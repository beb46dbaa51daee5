"""The format of DuckLake's catalog: the one that the installed DuckLake writes, and the migration to it."""

import tempfile
from pathlib import Path

import duckdb

from mlops_assets.lake.lake import Lake
from mlops_assets.lake.object_secret import grant_lake
from mlops_assets.lake.sql import literal
from mlops_assets.lake.tables import LakeError

_FORMAT = "SELECT value FROM __ducklake_metadata_new.ducklake_metadata WHERE key = 'version'"


def installed_format(extension_directory: Path) -> str:
    """The format of the catalogs that the installed DuckLake opens: that of a new one."""
    with tempfile.TemporaryDirectory() as folder, _session(extension_directory) as connection:
        connection.execute(f"ATTACH {literal(f'ducklake:{folder}/new')} AS new (DATA_PATH {literal(f'{folder}/files/')})")
        [(value,)] = connection.execute(_FORMAT).fetchall()
        return str(value)


def migrate_catalog(lake: Lake) -> None:
    """Let DuckLake migrate the catalog to the format of the installed one. No release of before opens it again.

    Raises LakeError when DuckLake cannot.
    """
    with _session(lake.extension_directory) as connection:
        try:
            grant_lake(connection, lake.data_path, lake.branched.url if lake.branched else None)
            connection.execute(
                f"ATTACH {literal('ducklake:postgres:' + lake.catalog)} AS lake "
                f"(DATA_PATH {literal(lake.data_path)}, AUTOMATIC_MIGRATION true)"
            )
        except duckdb.Error as error:
            raise LakeError(f"DuckLake cannot migrate the lake's catalog: {error}") from error


def _session(extension_directory: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "extension_directory": str(extension_directory),
            "autoinstall_known_extensions": False,
            "allow_unsigned_extensions": True,
        }
    )
