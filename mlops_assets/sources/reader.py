"""The reader of raw sources with DuckDB: files and databases in, typed rows and rejected rows out. Formats have readers of their own.

Every file is read by itself, as text or in its exact types, and cast once to the stated types (`source_types`) before the rows of several
files come together.
"""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path

import duckdb

from mlops_assets.lake.sql import is_one_of, literal, quote
from mlops_assets.schema.column_names import internal
from mlops_assets.schema.source import Column, RawTable
from mlops_assets.schema.source_reader import READERS, SourceReader
from mlops_assets.sources.column_types import FORMAT_OPTIONS, TextFormats, cast
from mlops_assets.sources.computed_columns import expression_types, guarded, in_order
from mlops_assets.sources.csv_reader import as_utf8
from mlops_assets.sources.extract import REASON, ROW, SOURCE, Extract, Field, SourceError, SourcePart
from mlops_assets.sources.files import local_file
from mlops_assets.sources.reader_options import COMPRESSION, ENCODING

__all__ = ["PARSED", "REASON", "ROW", "SOURCE", "DateRange", "SourceError", "parse"]

PARSED = "temp.main.parsed_rows"
"""Temporary table that `parse` leaves: the table's columns, `SOURCE`, `REASON` (null = accepted) and `ROW` (rejected, as JSON)."""

_SHOWN_LENGTH = 100
"""Characters of a value that a reason quotes; the whole row is kept beside it."""
_LISTED_NAMES = 50
_REFUSALS = (400, 401, 403, 404, 405, 410)
"""Answers of a server that asking again does not change."""


@dataclass(frozen=True)
class DateRange:
    """The partitions to read: rows whose DATE `column` is in `[start, end)`, and rows that have none."""

    column: str
    start: date
    end: date


@contextmanager
def parse(
    connection: duckdb.DuckDBPyConnection,
    table: RawTable,
    *,
    directory: Path,
    window: DateRange | None,
    own_files: Collection[str] | None = None,
) -> Iterator[list[str]]:
    """Read `table` into the temporary table `PARSED`, which lives as long as the block; yields the source's columns that are not used.

    `directory` is where relative file names start. Of files that are not among `own_files`, by default those of the table, an error lists
    no column names: they may be the content of any file. Raises SourceError for a missing file, variable or column, for a file that is not
    what its format says, and for an expression that SQL cannot compute.
    """
    listable = set(table.files or []) if own_files is None else set(own_files)
    with ExitStack() as stack:
        computed = expression_types(connection, table)
        extracts = read_extracts(connection, table, directory=directory, window=window, stack=stack)
        for extract in extracts:
            _require_columns(table, extract, is_listable=table.files is None or extract.label in listable)
        for number, extract in enumerate(extracts):
            into = f"INSERT INTO {PARSED}" if number else "CREATE OR REPLACE TEMP TABLE parsed_rows AS"
            with _reading(extract.label, table):
                connection.execute(f"{into} {_typed_rows(table, extract, computed, window)}")
                if extract.rejected:
                    connection.execute(f"INSERT INTO {PARSED} BY NAME {extract.rejected}")
    read = {column.source or name for name, column in table.columns.items()}
    try:
        yield list(dict.fromkeys(name for extract in extracts for name in extract.fields if name not in read))
    finally:
        connection.execute(f"DROP TABLE IF EXISTS {PARSED}")


def read_extracts(
    connection: duckdb.DuckDBPyConnection, table: RawTable, *, directory: Path, window: DateRange | None, stack: ExitStack
) -> list[Extract]:
    """The rows of each file, or those of the query."""
    read = [(column.source or name, column.type) for name, column in table.columns.items() if column.expression is None]
    query = table.query
    bounds = {"start": str(window.start), "end": str(window.end)} if window else {}
    extracts = []
    for number, label in enumerate([query.url_variable] if query else table.files or []):
        part = SourcePart(
            connection=connection,
            reader=query.database if query else str(table.format),
            label=label,
            number=number,
            path="",
            query=query,
            bounds=bounds,
            # A key may be read as several columns; the digits of a double alone do not matter.
            wanted=dict(sorted(read, key=lambda item: item[1] != "double")),
            null_strings=table.null_strings,
            options={name: value for name, value in table.options.items() if name not in FORMAT_OPTIONS},
            folder=Path(stack.enter_context(tempfile.TemporaryDirectory())),
            cleanup=stack,
        )
        reader = READERS.get(part.reader)
        with _reading(f"The database of {label} cannot be read" if query else label, table):
            extracts.append(reader.extract(part if query else _located(part, reader, directory)))
    return extracts


def _located(part: SourcePart, reader: SourceReader, directory: Path) -> SourcePart:
    """`part` with the path of its file: unpacked, and in UTF-8 where the reader reads text."""
    options = dict(part.options)
    compression, encoding = options.pop(COMPRESSION, None), options.pop(ENCODING, None)
    path = local_file(
        part.connection,
        part.label,
        directory=directory,
        folder=part.folder,
        compression=compression,
        in_place=reader.reads_urls,
    )
    return replace(part, path=as_utf8(path, part.folder, encoding) if reader.is_text else path, options=options)


@contextmanager
def _reading(place: str, table: RawTable) -> Iterator[None]:
    """Turn an error of DuckDB into a SourceError that quotes nothing of the file."""
    try:
        yield
    except UnicodeError:
        kind = "encoding"
    except duckdb.Error as error:
        # A file on this machine is the same at a second try; memory and the network may not be.
        if isinstance(error, duckdb.OutOfMemoryException | duckdb.InterruptException):
            raise
        if isinstance(error, duckdb.HTTPException) and error.status_code in _REFUSALS:
            raise SourceError(
                f"{place}: the server answers {error.status_code} {error.reason}. Check the address, and what may be read there."
            ) from None
        if isinstance(error, duckdb.OperationalError) and "://" in place:
            raise
        if type(error) is duckdb.Error and "://" in place:
            # Curl's own errors have no class of their own.
            raise ConnectionError(f"{place}: the answer of the server did not arrive whole. The next attempt may.") from error
        kind = type(error).__name__.removesuffix("Exception")
    else:
        return
    raise SourceError(
        f"{place}: it cannot be read as {table.format or 'a query'} ({kind}). Check the format and the options, or deliver it again."
    ) from None


def _require_columns(table: RawTable, extract: Extract, *, is_listable: bool) -> None:
    if extract.is_sparse:
        return
    read = {name: column for name, column in table.columns.items() if column.expression is None}
    required = {column.source or name for name, column in read.items() if not column.optional}
    if missing := sorted(required - extract.fields.keys()):
        if not is_listable:
            raise SourceError(f"{extract.label} lacks the columns {', '.join(missing)}; it has {len(extract.fields)} others.")
        names = [name[:_SHOWN_LENGTH] for name in extract.fields]
        hints = [f"{name} (nearest: {', '.join(_nearest(name, names)) or 'none'})" for name in missing]
        raise SourceError(
            f"{extract.label} lacks the columns {'; '.join(hints)}. It has: {', '.join(names[:_LISTED_NAMES])}. "
            "A column that some files lack is `optional: true`."
        )
    if repeated := sorted(name for name in extract.repeated if name in {column.source or name for name, column in read.items()}):
        raise SourceError(f"{extract.label} has several columns that are called {', '.join(repeated)}: rename all but one.")


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    folded = {other.casefold(): other for other in names}
    return [folded[match] for match in get_close_matches(name.casefold(), folded)]


def _typed_rows(table: RawTable, extract: Extract, computed: dict[str, str], window: DateRange | None) -> str:
    """SQL for the rows of `extract` with the columns of `table`, and why a row is rejected."""
    query = f"SELECT * FROM {extract.relation}"
    formats = TextFormats.of(table.options)
    reasons: list[str] = []
    steps: tuple[list[str], list[str], list[str]] = ([], [], [])
    for number, (name, column) in enumerate(in_order(table)):
        given, candidate, value = internal(f"given_{number}"), internal(f"candidate_{number}"), internal("value")
        if column.expression is None:
            source = extract.fields.get(column.source or name, Field("CAST(NULL AS VARCHAR)", "VARCHAR"))
            raw, kind, fails = source.sql, source.type, "false"
            if kind == "VARCHAR" and not extract.has_nulls and table.null_strings:
                raw = f"CASE WHEN NOT {is_one_of(raw, table.null_strings)} THEN {raw} END"
        else:
            if any(steps):
                query, steps = _stacked(query, steps), ([], [], [])
            whole = internal(f"computed_{number}")
            query = f"SELECT *, {guarded(column.expression)} AS {whole} FROM ({query})"
            raw, kind, fails = f"{whole}.{value}", computed[name], f"{whole} IS NULL"
        rule = cast(raw, kind, column.type, given=given, candidate=candidate, formats=formats)
        for step, expression, alias in zip(
            steps, (rule.given, rule.candidate, rule.value), (given, candidate, quote(name)), strict=True
        ):
            if expression != "NULL":
                step.append(f"{expression} AS {alias}")
        reasons += _reasons(name, column, raw=raw, nan=rule.nan, fails=fails)
    query = _stacked(query, steps)
    if window is not None:
        column_name = quote(window.column)
        query = (
            f"SELECT * FROM ({query}) WHERE {column_name} IS NULL "
            f"OR ({column_name} >= DATE '{window.start}' AND {column_name} < DATE '{window.end}')"
        )
    names = ", ".join(quote(name) for name in table.columns)
    reason = f"nullif(concat_ws('; ', {', '.join(reasons)}), '')" if reasons else "CAST(NULL AS VARCHAR)"
    return (
        f"SELECT {names}, {literal(extract.label)} AS {SOURCE}, {REASON}, CASE WHEN {REASON} IS NOT NULL THEN {extract.row} END AS {ROW} "
        f"FROM (SELECT *, {reason} AS {REASON} FROM ({query}))"
    )


def _stacked(query: str, steps: Sequence[Sequence[str]]) -> str:
    for step in steps:
        if step:
            query = f"SELECT *, {', '.join(step)} FROM ({query})"
    return query


def _reasons(name: str, column: Column, *, raw: str, nan: str, fails: str) -> Iterator[str]:
    """SQL that gives a text for each way a row of this column is wrong, and null where it is right."""
    value, text = quote(name), f"left(CAST({raw} AS VARCHAR), {_SHOWN_LENGTH})"
    cases = f"WHEN {raw} IS NOT NULL AND NOT ({nan}) THEN {literal(name + ': ')} || {text} || {literal(' is no ' + column.type)} "
    if column.expression is not None:
        cases = f"WHEN {fails} THEN {literal(name + ' cannot be computed')} {cases}"
    if column.required:
        cases += f"ELSE {literal(name + ' is missing')} "
    yield f"CASE WHEN {value} IS NULL THEN CASE {cases}END END"
