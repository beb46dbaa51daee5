"""The rows of small files, read as a source reads them. No tests here."""

from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import PARSED, REASON, parse

CONNECTION = duckdb.connect(config={"threads": 1})

CONTENT = b"a,b\n1,x\n2,y\n"
READ = [(1, "x"), (2, "y")]
COLUMNS = {"a": {"type": "integer"}, "b": {"type": "varchar"}}
"""A file, its rows, and its columns as YAML states them."""


def read(folder: Path, *files: str, **table: Any) -> list[tuple[Any, ...]]:
    """The rows of CSV files; those that are rejected have their reason in place of the values."""
    declared = RawTable.model_validate({"description": "d", "format": "csv", "files": files, "columns": COLUMNS, **table})
    with parse(CONNECTION, declared, directory=folder, window=None):
        names = ", ".join(declared.columns)
        accepted = CONNECTION.execute(f"SELECT {names} FROM {PARSED} WHERE {REASON} IS NULL").fetchall()
        return accepted + CONNECTION.execute(f"SELECT {REASON} FROM {PARSED} WHERE {REASON} IS NOT NULL").fetchall()
