"""A real lake without a server: DuckLake with its catalog in a file. No tests here."""

from pathlib import Path

import duckdb

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY


def lake_in_folder(folder: Path, *, files: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A connection to the lake in `folder`, which is made when it is not there yet, with the lake as its default catalog.

    Its Parquet files are in `files`, or in the same folder.
    """
    configuration = {
        "extension_directory": str(DUCKDB_EXTENSION_DIRECTORY),
        "autoinstall_known_extensions": False,
        "allow_unsigned_extensions": True,
    }
    connection = duckdb.connect(config=configuration)
    connection.execute("SET TimeZone = 'UTC'")
    data_path = files or folder / "files"
    connection.execute(
        f"ATTACH 'ducklake:{folder}/catalog.ducklake' AS lake (DATA_PATH '{data_path}/', OVERRIDE_DATA_PATH true); USE lake"
    )
    return connection
