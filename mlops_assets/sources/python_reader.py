"""Readers that are Python functions: they yield Arrow tables and what they reject, and the platform does the rest.

The tables are staged in DuckDB in exact types, so that every promise on casts, rejects and counts holds as for the built-in readers.
"""

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import column_types
from mlops_assets.schema.column_names import internal
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.parameters import check_parameters, keyword_parameters
from mlops_assets.schema.source_reader import Reads
from mlops_assets.sources.arrow_types import exact_fields, refuse_inexact
from mlops_assets.sources.column_types import FORMAT_OPTIONS, NANOSECOND_INSTANT
from mlops_assets.sources.csv_reader import json_row
from mlops_assets.sources.extract import REASON, ROW, SOURCE, Extract, Field, SourceError, SourcePart, position
from mlops_assets.sources.reader_options import check_options, platform_options

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_HELD = 1000
"""Rejected records that wait to be written."""
_BATCH = internal("batch")


@dataclass(frozen=True)
class SourceFile:
    """A file to read: `path` on this machine, `label` as the YAML file names it, and the `columns` that are wanted, with their types."""

    path: Path
    label: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class SourceQuery:
    """A query to run: the connection string `url`, the statement with the dates of its partitions, and the `columns` that are wanted."""

    url: str
    sql: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Rejected:
    """What is no row: where it stands, such as `line 7`, why it is none, and its content, which the table of rejects keeps."""

    place: str
    reason: str
    content: str


@dataclass(frozen=True)
class PythonReader:
    """A reader that is a function of a `SourceFile` or `SourceQuery`; its keyword arguments are options in YAML."""

    function: Callable[..., Iterator[Any]]
    reads: Reads
    is_text: bool
    reads_urls = False

    @property
    def options(self) -> Collection[str]:
        """The keyword arguments of the function, and what the platform applies."""
        platform = platform_options(is_text=self.is_text) if self.reads == "files" else FORMAT_OPTIONS
        return {*platform, *keyword_parameters(self.function)}

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that has no effect, is lacking, or whose value is of another type."""
        own = keyword_parameters(self.function)
        check_options(name, self.options, {key: value for key, value in options.items() if key not in own})
        try:
            check_parameters(self.function, {key: value for key, value in options.items() if key in own}, ("options",), name)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    def extract(self, part: SourcePart) -> Extract:
        """Stage the rows of `part`. Raises SourceError, with the line in the reader, for what the function raises."""
        staged, rejects = (internal(f"{name}_{part.number}") for name in ("rows", "rejects"))
        for table in (staged, rejects):
            part.cleanup.callback(part.connection.execute, f"DROP TABLE IF EXISTS temp.main.{table}")
        part.connection.execute(f"CREATE OR REPLACE TEMP TABLE {rejects} ({SOURCE} VARCHAR, {REASON} VARCHAR, {ROW} VARCHAR)")
        schema, waiting = None, []
        for item in self._items(part):
            if isinstance(item, Rejected):
                waiting.append((part.label, f"{item.place}: {item.reason}", item.content))
                if len(waiting) == _MOST_HELD:
                    _write_rejects(part, rejects, waiting)
                continue
            if schema is not None and item.schema != schema:
                raise SourceError(
                    f"{part.label}: the tables that {part.reader} yields have different columns or types. Give each the same schema."
                )
            _stage(part, staged, item, is_first=schema is None)
            schema = item.schema
        _write_rejects(part, rejects, waiting)
        names = schema.names if schema is not None else []
        types = list(column_types(part.connection, f"temp.main.{staged}").values()) if schema is not None else []
        instants = exact_fields(list(schema))[1] if schema is not None else set()
        fields = {
            name: Field(position(number), NANOSECOND_INSTANT if name in instants else types[number])
            for number, name in reversed(list(enumerate(names)))
        }
        return Extract(
            label=part.label,
            fields=dict(reversed(fields.items())),
            relation=f"temp.main.{staged}" if names else "(SELECT 1 WHERE false)",
            row=json_row(list(zip(names, types, strict=True))) if names else "'{}'",
            repeated=frozenset(name for name in names if names.count(name) > 1),
            rejected=f"FROM temp.main.{rejects}",
            is_sparse=not names,
        )

    def _items(self, part: SourcePart) -> Iterator[Any]:
        options = {name: value for name, value in part.options.items() if name in keyword_parameters(self.function)}
        subject: SourceFile | SourceQuery
        if part.query is not None:
            subject = SourceQuery(part.connection_string, part.sql, part.wanted)
        else:
            subject = SourceFile(Path(part.path), part.label, part.wanted)
        try:
            yield from self.function(subject, **options)
        except (SourceError, OSError, MemoryError):
            # A full disk or a lost server may be another time.
            raise
        except Exception as error:  # whatever a team's function raises; its message may quote the file
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
        else:
            return
        raise SourceError(
            f"{part.label}: the reader {part.reader} failed ({problem}). Mend it, or deliver another file."
        ) from None


def file_reader(*, is_text: bool = False) -> Callable[[Callable[..., Iterator[Any]]], PythonReader]:
    """Declare the function below as a reader of files. It yields tables of Arrow and `Rejected` records, in any order.

    The file of a reader that `is_text` is UTF-8, whatever the option `encoding` says it was.
    """
    return lambda function: PythonReader(function, "files", is_text)


def query_reader() -> Callable[[Callable[..., Iterator[Any]]], PythonReader]:
    """Declare the function below as a reader of queries, as `file_reader` does."""
    return lambda function: PythonReader(function, "query", is_text=False)


def _stage(part: SourcePart, staged: str, rows: "pa.Table | pa.RecordBatch", *, is_first: bool) -> None:
    import pyarrow as pa

    if not isinstance(rows, pa.Table | pa.RecordBatch):
        raise SourceError(
            f"{part.label}: {part.reader} yields {type(rows).__name__}; a reader yields tables of Arrow and `Rejected` records."
        )
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    refuse_inexact(list(table.schema), part.label, part.wanted)
    fields, _ = exact_fields(list(table.schema))
    columns = [column.cast(field.type) for column, field in zip(table.columns, fields, strict=True)]
    positions = [position(number) for number in range(len(fields))]
    part.connection.register(_BATCH, pa.Table.from_arrays(columns, names=positions))
    try:
        into = f"CREATE OR REPLACE TEMP TABLE {staged} AS" if is_first else f"INSERT INTO temp.main.{staged}"
        part.connection.execute(f"{into} SELECT {', '.join(map(quote, positions))} FROM {_BATCH}")
    finally:
        part.connection.unregister(_BATCH)


def _write_rejects(part: SourcePart, rejects: str, waiting: list[tuple[str, str, str]]) -> None:
    if waiting:
        values = ", ".join(
            f"({literal(label)}, {literal(reason)}, CAST(to_json({{'content': {literal(content)}}}) AS VARCHAR))"
            for label, reason, content in waiting
        )
        part.connection.execute(f"INSERT INTO temp.main.{rejects} VALUES {values}")
        waiting.clear()
