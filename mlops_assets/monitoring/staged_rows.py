"""Rows that several reports read: the result of one query in a DuckDB file, made by the first report and attached by the others.

The file is named by the query and the newest change of its tables, so that a report which is materialized alone, or later, never reads
older rows. It is a file because it may be larger than memory, and keeps every type as it is.
"""

import hashlib
import tempfile
from collections.abc import Collection
from pathlib import Path

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.lake.table_changes import newest_change

ROWS = "temp.main.monitored_rows"
"""The temporary table or view that `stage_once` makes."""

_DATABASE = "staged_windows"
_KEPT = 4
"""Files of one solution: runs on other windows may be under way."""


def stage_once(connection: duckdb.DuckDBPyConnection, directory: Path, *, query: str, tables: Collection[str]) -> None:
    """Make `ROWS` the result of `query`, which reads the lake's `tables`: from a file in `directory`, made when it is not there yet."""
    change = newest_change(connection, tables)
    if change is None:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE monitored_rows AS {query}")
        return
    connection.execute(f"DETACH DATABASE IF EXISTS {_DATABASE}")
    path = directory / f"{hashlib.sha256(f'{change} {query}'.encode()).hexdigest()}.duckdb"
    if not path.exists():
        _write(connection, path, query)
    connection.execute(f"ATTACH {literal(str(path))} AS {_DATABASE} (READ_ONLY)")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW monitored_rows AS FROM {_DATABASE}.main.staged")


def _write(connection: duckdb.DuckDBPyConnection, path: Path, query: str) -> None:
    """Write the file `path`, which appears complete or not at all, and remove the oldest ones beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
        written = Path(scratch) / path.name
        connection.execute(f"ATTACH {literal(str(written))} AS {_DATABASE}")
        connection.execute(f"CREATE TABLE {_DATABASE}.main.staged AS {query}")
        connection.execute(f"DETACH {_DATABASE}")
        written.rename(path)
    newest_first = sorted(path.parent.glob("*.duckdb"), key=lambda file: file.stat().st_mtime, reverse=True)
    for outdated in newest_first[_KEPT:]:
        outdated.unlink(missing_ok=True)
