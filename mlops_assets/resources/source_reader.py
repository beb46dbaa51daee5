"""Reading raw sources with DuckDB: files and databases in, typed rows and rejected rows out."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import duckdb

from mlops_assets.resources.csv_reader import csv_query, reader_options, rejected_lines_query
from mlops_assets.resources.lake import column_types, literal, quote
from mlops_assets.source import Column, RawTable

PARSED = "temp.main.parsed_rows"
"""Temporary table that `parse` leaves: the table's columns, `_source`, `_reason` (null = accepted) and `_row` (rejected, as JSON)."""

_WIDER_TYPES = {"integer": "DOUBLE", "bigint": "DOUBLE", "date": "TIMESTAMP", "timestamp": "TIMESTAMPTZ"}
"""TRY_CAST makes 6 of '5.7' and drops the time of a date and the offset of a time: what differs in the wider type was lost."""

_SHOWN_LENGTH = 100
"""Characters of a value that a reason quotes; the whole row is kept beside it."""


class SourceError(Exception):
    """A source cannot be read as its YAML file says; the message names the file or column and the remedy."""


@dataclass(frozen=True)
class Window:
    """The partitions to read: rows whose DATE `column` is in `[start, end)`, and rows that have none."""

    column: str
    start: date
    end: date


@contextmanager
def parse(
    connection: duckdb.DuckDBPyConnection, table: RawTable, *, directory: Path, window: Window | None
) -> Iterator[list[str]]:
    """Read `table` into the temporary table `PARSED`, which lives as long as the block; yields the source's columns that are not used.

    `directory` is where relative file names start. Raises SourceError for a missing file, variable or column, for a file that is
    not what its format says, and for an expression that SQL cannot compute.
    """
    with ExitStack() as stack:
        try:
            labels = _read_source(connection, table, directory=directory, window=window, stack=stack)
            found = [column for column in column_types(connection, "temp.main.source_rows") if column != "_source"]
            _require_columns(table, found)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE parsed_rows AS {_parsing_query(table, window)}")
            connection.execute("DROP TABLE temp.main.source_rows")
            if table.format == "csv":
                connection.execute(f"INSERT INTO {PARSED} BY NAME {rejected_lines_query(labels)}")
                connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        except (duckdb.ProgrammingError, duckdb.DataError, ValueError) as error:
            raise SourceError(f"The source cannot be read as its YAML file says: {error}") from error
        try:
            yield [column for column in found if column not in table.columns]
        finally:
            connection.execute(f"DROP TABLE IF EXISTS {PARSED}")


def _read_source(
    connection: duckdb.DuckDBPyConnection, table: RawTable, *, directory: Path, window: Window | None, stack: ExitStack
) -> dict[str, str]:
    """Fill the temporary table `source_rows`; returns the labels of the files by the path that was read."""
    if table.query is not None:
        url = os.environ.get(table.query.url_variable)
        if not url:
            raise SourceError(f"Set the environment variable {table.query.url_variable} to the connection string of the source.")
        bounds = {"start": str(window.start), "end": str(window.end)} if window else {}
        sql = table.query.sql
        for name, value in bounds.items():
            sql = sql.replace("{" + name + "}", value)
        connection.execute(f"ATTACH {literal(url)} AS source_database (TYPE {table.query.database}, READ_ONLY)")
        stack.callback(connection.execute, "DETACH source_database")
        reader = (
            f"SELECT *, {literal(table.query.url_variable)} AS _source FROM postgres_query('source_database', {literal(sql)})"
        )
        connection.execute(f"CREATE OR REPLACE TEMP TABLE source_rows AS {reader}")
        return {}
    selects, labels = [], {}
    for label in table.files or []:
        path = stack.enter_context(_local_file(label, directory))
        if "://" in label:
            connection.execute("LOAD httpfs")
        labels[path] = label
        if table.format == "csv":
            rows = csv_query(connection, path, null_strings=table.null_strings, options=table.options)
            if rows is None:
                raise SourceError(f"{label} is empty: a CSV file begins with its header.")
        else:
            rows = f"FROM read_{table.format}({literal(path)}{reader_options(table.options)})"
        selects.append(f"SELECT *, {literal(label)} AS _source {rows}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE source_rows AS {' UNION ALL BY NAME '.join(selects)}")
    return labels


@contextmanager
def _local_file(label: str, directory: Path) -> Iterator[str]:
    """The path or URL DuckDB reads for a file of a YAML source; a zip archive of one file is unpacked for the block."""
    if "://" in label:
        yield label
        return
    if label.startswith("package:"):
        package, _, inside = label.removeprefix("package:").partition("/")
        specification = find_spec(package)
        if specification is None or not specification.submodule_search_locations:
            raise SourceError(f"{label}: the package {package} is not installed.")
        path = Path(specification.submodule_search_locations[0]) / inside
    else:
        path = directory / label
    if not path.is_file():
        raise SourceError(f"{label}: there is no file {path}.")
    if path.suffix != ".zip":
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        members = [member for member in archive.namelist() if not member.endswith("/")]
        if len(members) != 1:
            raise SourceError(f"{label}: expected one file in the archive, found {', '.join(members) or 'none'}.")
        yield archive.extract(members[0], folder)


def _require_columns(table: RawTable, found: list[str]) -> None:
    missing = [name for name, column in table.columns.items() if column.expression is None and name not in found]
    if missing:
        hints = [f"{name} (nearest: {', '.join(get_close_matches(name, found)) or 'none'})" for name in missing]
        raise SourceError(f"The source lacks the columns {'; '.join(hints)}. It has: {', '.join(found)}.")


def _parsing_query(table: RawTable, window: Window | None) -> str:
    read = {name: column for name, column in table.columns.items() if column.expression is None}
    typed = ", ".join(f"TRY_CAST(s.{quote(name)} AS {column.type}) AS {quote(name)}" for name, column in read.items())
    query = f"SELECT {typed}, s AS _values, s._source FROM temp.main.source_rows s"
    for name, column in table.columns.items():
        if column.expression is not None:
            query = f"SELECT *, CAST(TRY({column.expression}) AS {column.type}) AS {quote(name)} FROM ({query})"
    if window is not None:
        column_name = quote(window.column)
        query = (
            f"SELECT * FROM ({query}) WHERE {column_name} IS NULL "
            f"OR ({column_name} >= DATE '{window.start}' AND {column_name} < DATE '{window.end}')"
        )
    reasons = ", ".join(reason for name, column in table.columns.items() for reason in _reasons(name, column))
    names = ", ".join(quote(name) for name in table.columns)
    reasoned = f"SELECT {names}, _source, _values, nullif(concat_ws('; ', {reasons}), '') AS _reason FROM ({query})"
    return (
        f"SELECT {names}, _source, _reason, CASE WHEN _reason IS NOT NULL THEN CAST(to_json(_values) AS VARCHAR) END AS _row "
        f"FROM ({reasoned})"
    )


def _reasons(name: str, column: Column) -> Iterator[str]:
    """SQL that gives a text for each way a row of this column is wrong, and null where it is right."""
    value, given = quote(name), f"_values.{quote(name)}"
    if column.expression is None:
        lost = [f"{value} IS NULL"]
        if wider := _WIDER_TYPES.get(column.type):
            lost.append(f"{value} <> TRY_CAST({given} AS {wider})")
        if column.type == "double":
            lost.append(f"(isinf({value}) AND NOT contains(lower(CAST({given} AS VARCHAR)), 'inf'))")
        shown = f"left(CAST({given} AS VARCHAR), {_SHOWN_LENGTH})"
        yield (
            f"CASE WHEN {given} IS NOT NULL AND ({' OR '.join(lost)}) THEN "
            f"{literal(name + ': ')} || {shown} || {literal(' is no ' + column.type)} END"
        )
        missing = f"{given} IS NULL"
    else:
        missing = f"{value} IS NULL"
    if column.required:
        yield f"CASE WHEN {missing} THEN {literal(name + ' is missing')} END"
    yield "CAST(NULL AS VARCHAR)"
