"""CSV files as DuckDB queries that neither guess nor drop: every line becomes a row of text or a rejected line with its reason.

DuckDB's detection of dialects is off: it skips lines that it takes for comments or titles, and gives up on a stray quote.
"""

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from mlops_assets.resources.lake import literal, quote

_HEADER_OPTIONS = ("compression", "encoding", "skip", "max_line_size", "buffer_size")
"""Options that decide where the header is and how its bytes are read."""


def csv_query(
    connection: duckdb.DuckDBPyConnection, path: str, *, null_strings: Sequence[str], options: Mapping[str, Any]
) -> str | None:
    """SQL for the rows of the CSV file at `path`, each column as text named by the file's header; None for a file without one.

    `options` are those of DuckDB's `read_csv`; with `header: false` they name the columns in `names`.
    """
    if "new_line" in options:
        # A wrong one gives a table without rows and without rejects.
        raise ValueError("the option `new_line` is not supported: line ends are detected")
    given = dict(options)
    delimiter, quotation = str(given.pop("sep", given.pop("delim", ","))), str(given.pop("quote", '"'))
    names = given.pop("names", None)
    if given.setdefault("header", True):
        header = _first_line(connection, path, given)
        if header is None:
            return None
        names = next(csv.reader([header], delimiter=delimiter, quotechar=quotation or None))
    elif not names:
        raise ValueError("a CSV file without a header needs the option `names`")
    fixed = {"auto_detect": False, "ignore_errors": True, "store_rejects": True, "rejects_limit": 0}
    defaults = {"escape": quotation, "comment": "", "nullstr": ["", *null_strings]}
    settings = {**defaults, **given, **fixed, "delim": delimiter, "quote": quotation}
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in _unique(names))
    return f"FROM read_csv({literal(path)}, columns = {{{columns}}}{reader_options(settings)})"


def rejected_lines_query(labels: Mapping[str, str]) -> str:
    """SQL for the lines that were no CSV rows, one row a line: `_source` (its label by path), `_reason` and `_row` (as JSON)."""
    source = "file_path"
    if labels:
        cases = " ".join(f"WHEN {literal(path)} THEN {literal(label)}" for path, label in labels.items())
        source = f"CASE file_path {cases} ELSE file_path END"
    # A line has one error for each surplus or lacking value: the last surplus or the first lacking one says how many there are.
    position = "coalesce(e.column_idx, 0) * CASE e.error_type WHEN 'MISSING COLUMNS' THEN -1 ELSE 1 END"
    return (
        f"SELECT {source} AS _source, 'line ' || line || ': ' || string_agg(message, '; ' ORDER BY message) AS _reason, "
        "CAST(to_json({'line': any_value(csv_line)}) AS VARCHAR) AS _row FROM ("
        "SELECT s.file_path, e.line, e.line_byte_position, any_value(ltrim(e.csv_line, chr(10))) AS csv_line, "
        f"arg_max(e.error_message, {position}) AS message "
        "FROM reject_errors e JOIN reject_scans s USING (scan_id, file_id) GROUP BY s.file_path, e.line, e.line_byte_position, e.error_type) "
        "GROUP BY file_path, line, line_byte_position"
    )


def reader_options(options: Mapping[str, Any]) -> str:
    """`options` as further arguments of a DuckDB table function."""
    return "".join(f", {quote(name)} = {_sql_value(value)}" for name, value in options.items())


def _sql_value(value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{literal(str(name))}: {_sql_value(item)}' for name, item in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_sql_value(item) for item in value)}]"
    return literal(str(value))


def _first_line(connection: duckdb.DuckDBPyConnection, path: str, options: Mapping[str, Any]) -> str | None:
    kept = {name: options[name] for name in _HEADER_OPTIONS if name in options}
    # Errors of later lines are none of the header.
    raw = {
        "ignore_errors": True,
        "auto_detect": False,
        "header": False,
        "delim": "\x01",
        "quote": "",
        "escape": "",
        "comment": "",
        "strict_mode": False,
    }
    found = connection.execute(
        f"SELECT line FROM read_csv({literal(path)}, columns = {{'line': 'VARCHAR'}}{reader_options({**kept, **raw})}) LIMIT 1"
    ).fetchall()
    return found[0][0] if found else None


def _unique(names: Sequence[str]) -> list[str]:
    """Column names as DuckDB tells them apart, whatever their case: the second `b` becomes `b_1`, an empty one `column2`."""
    unique: list[str] = []
    for position, name in enumerate(names):
        wanted = name.strip() or f"column{position}"
        candidate, number = wanted, 0
        while candidate.lower() in {taken.lower() for taken in unique}:
            number += 1
            candidate = f"{wanted}_{number}"
        unique.append(candidate)
    return unique
