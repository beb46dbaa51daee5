"""The origin of the rows: a file on this machine, a URL, a query on a Postgres, or a raw table of the project, and its name in YAML."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from mlops_assets.core.errors import StackError
from mlops_assets.schema.column_names import fold
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.declarations import DeclaredTable
from mlops_assets.schema.source import RawTable
from mlops_assets.schema.source_reader import file_readers

_OTHER_ENDINGS = {"tsv": "csv", "tab": "csv", "txt": "csv", "data": "csv", "jsonl": "json", "ndjson": "json", "pq": "parquet"}
"""Endings of file names that are none of a reader's, and the format that such files have."""

_PACKED = frozenset({"gz", "bz2", "xz", "zst", "zip"})


@dataclass(frozen=True)
class Origin:
    """Where the rows are: `label` as a YAML source names a file, with its `format`; or a `query`; or a table that the project has `declared`.

    `path` is the file on this machine; None of a URL, a file of a package, or a query.
    """

    format: str | None
    label: str
    path: Path | None = None
    query: Mapping[str, str] | None = None
    declared: DeclaredTable | None = None

    @classmethod
    def of_file(cls, text: str) -> "Origin":
        """The origin that `--from` names. Raises StackError for a file that is not there or has no format by its name."""
        name = PurePosixPath(urlsplit(text).path).name if "://" in text else PurePosixPath(text).name
        kind = _format(name)
        if "://" in text or text.startswith("package:"):
            return cls(kind, text)
        path = Path(text).expanduser().resolve()
        if not path.is_file():
            raise StackError(f"There is no file {path}.", remedy="Name a CSV, Parquet or JSON file, or a query: --query.")
        return cls(kind, str(path), path)

    @classmethod
    def of_query(cls, sql: str, url_variable: str) -> "Origin":
        """The rows of a query on the Postgres whose connection string the environment variable holds."""
        return cls(None, url_variable, query={"database": "postgres", "url_variable": url_variable, "sql": sql})

    @classmethod
    def of_table(cls, name: str, tables: Mapping[str, DeclaredTable]) -> "Origin":
        """The rows of one of the raw `tables` of the project. Raises StackError for one that is not declared."""
        if name not in tables:
            raise StackError(f"There is no raw table {name!r}.", remedy=f"Raw tables: {nearest(name, list(tables))}")
        return cls(None, name, declared=tables[name])

    @property
    def has_exact_types(self) -> bool:
        """Whether a text is one in the source; those of a CSV or JSON file may be anything, and those of a query exact numbers."""
        return self.query is None and self.format not in ("csv", "json")

    @property
    def is_open(self) -> bool:
        """Whether rows will come, so that the partitions go on."""
        partitions = self.declared.table.partitions if self.declared else None
        return self.query is not None or (partitions is not None and partitions.end is None)

    @property
    def is_text_file(self) -> bool:
        """Whether delimiter and encoding have to be known."""
        return self.format == "csv"

    def table(self, columns: Mapping[str, Any], *, options: Mapping[str, Any], null_strings: tuple[str, ...] = ()) -> RawTable:
        """The raw table of these columns. Raises StackError for an option that the reader refuses."""
        place: dict[str, Any] = {"query": self.query} if self.query else {"files": [self.label], "format": self.format}
        fields = {"description": "", "columns": columns, "options": options, "null_strings": list(null_strings)}
        try:
            return RawTable.model_validate({**place, **fields})
        except ValidationError as error:
            messages = "; ".join(str(problem["msg"]) for problem in error.errors())
            raise StackError(f"{self.label} cannot be described so: {messages}", remedy="Correct the options.") from error


def _format(name: str) -> str:
    endings = [part.lower() for part in name.split(".")[1:] if part.lower() not in _PACKED]
    for ending in reversed(endings):
        kind = _OTHER_ENDINGS.get(ending, ending)
        if kind in file_readers():
            return kind
    raise StackError(
        f"The name {name} says no format.",
        remedy=f"Let it end with one of: .{', .'.join(sorted({*file_readers(), *_OTHER_ENDINGS}))}",
    )


_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


def table_name(text: str) -> str:
    """`text` as the name of a table or solution: lower-case letters, digits and `_`."""
    german = text.lower().translate(_GERMAN)
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", german) if not unicodedata.combining(letter))
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_").lstrip("0123456789_")


def free_name(text: str, taken: Collection[str]) -> str:
    """A name for a computed column, after `text`, that is none of the columns `taken`."""
    name = table_name(text)[:100] or "computed"
    while fold(name) in map(fold, taken):
        name += "_"
    return name
