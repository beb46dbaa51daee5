"""CSV files as DuckDB queries that neither guess nor drop: every record becomes a row of text or a rejected record with its reason.

DuckDB's detection of dialects is off: it skips lines that it takes for comments or titles, and gives up on a stray quote. The header
is read by `csv_header.py`, as a record with the rules of the rows.
"""

import codecs
import mmap
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.lake.sql import literal, quote
from mlops_assets.schema.column_names import fold
from mlops_assets.sources.csv_header import Dialect, read_header, without_quotes_above
from mlops_assets.sources.extract import REASON, ROW, SOURCE, Extract, Field, SourcePart, position

REJECTED, SCANS = "__mlopsrejected_records", "__mlops_csv_scans"
"""Temporary tables in which DuckDB keeps what was no record."""

_CHUNK = 1 << 20
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
"""Marks at the beginning of a file that state its encoding; the longer ones first."""
FIXED: Mapping[str, Any] = {
    "auto_detect": False,
    "ignore_errors": True,
    "store_rejects": True,
    "rejects_limit": 0,
    "rejects_table": REJECTED,
    "rejects_scan": SCANS,
}
"""Settings with which DuckDB drops no record without a word."""


def csv_extract(part: SourcePart) -> Extract:
    """The rows of a CSV file, each column as text. Raises SourceError for a file without a header.

    The options are those of DuckDB's `read_csv`; with `header: false` they name the columns in `names`.
    """
    path, label, folder = part.path, part.label, part.folder
    for table in (REJECTED, SCANS):
        part.cleanup.callback(part.connection.execute, f"DROP TABLE IF EXISTS {table}")
    options = dict(part.options)
    quotation = str(options.pop("quote", '"'))
    dialect = Dialect(
        delimiter=str(options.pop("sep", options.pop("delim", options.pop("delimiter", ",")))),
        quotation=quotation,
        escape=str(options.pop("escape", quotation)),
        comment=str(options.pop("comment", "")),
    )
    path, line_end = with_one_line_end(
        path, folder, delimiter=dialect.delimiter, quotation=dialect.quotation, escape=dialect.escape
    )
    names = options.pop("names", None)
    path = without_quotes_above(path, folder, dialect, int(options.get("skip", 0)))
    if options.setdefault("header", True):
        header, skipped = read_header(path, label, dialect, int(options.pop("skip", 0)))
        options["skip"] = skipped
        names = names or header
    settings = {
        **options,
        **FIXED,
        # DuckDB takes the first line end for that of all records, even within quotes, and then drops records.
        "new_line": line_end,
        "delim": dialect.delimiter,
        "quote": dialect.quotation,
        "escape": dialect.escape,
        "comment": dialect.comment,
        "nullstr": ["", *part.null_strings],
    }
    columns = ", ".join(f"{literal(position(number))}: 'VARCHAR'" for number in range(len(names)))
    names = [name.strip() for name in names]
    fields = {name: Field(position(number), "VARCHAR") for number, name in reversed(list(enumerate(names))) if name}
    return Extract(
        label=label,
        fields=dict(reversed(fields.items())),
        repeated=frozenset(name for name in names if name and names.count(name) > 1),
        unnamed=names.count(""),
        relation=f"(FROM read_csv({literal(path)}, columns = {{{columns}}}{reader_options(settings)}))",
        row=json_row([(name, "VARCHAR") for name in names]),
        rejected=rejected_records(path, label),
        has_nulls=True,
    )


def json_row(columns: Sequence[tuple[str, str]]) -> str:
    """SQL for the columns (name and type) by position as a JSON object; those without a name, or with that of another one, get a name."""
    unique: dict[str, str] = {}
    for number, (name, kind) in enumerate(columns):
        unique_name, value = name or f"column{number}", position(number)
        while fold(unique_name) in map(fold, unique):
            unique_name += "_"
        if kind in ("FLOAT", "DOUBLE"):
            # JSON has no infinity.
            value = f"CASE WHEN isfinite({value}) THEN to_json({value}) ELSE to_json(CAST({value} AS VARCHAR)) END"
        elif kind.startswith("DECIMAL"):
            # DuckDB writes `.5`.
            value = f"CAST({value} AS VARCHAR)"
        unique[unique_name] = value
    return f"CAST(json_object({', '.join(f'{literal(name)}, {value}' for name, value in unique.items())}) AS VARCHAR)"


def rejected_records(path: str, label: str) -> str:
    """SQL for the records of the file at `path` that could not be read: `SOURCE`, `REASON` and `ROW`."""
    # A line has one error for each surplus or lacking value: the last surplus or the first lacking one says how many there are.
    number = "coalesce(e.column_idx, 0) * CASE e.error_type WHEN 'MISSING COLUMNS' THEN -1 ELSE 1 END"
    return (
        f"SELECT {literal(label)} AS {SOURCE}, 'line ' || line || ': ' || string_agg(message, '; ' ORDER BY message) AS {REASON}, "
        f"CAST(to_json({{'line': any_value(csv_line)}}) AS VARCHAR) AS {ROW} FROM ("
        "SELECT e.line, e.line_byte_position, any_value(ltrim(e.csv_line, chr(10))) AS csv_line, "
        f"arg_max(e.error_message, {number}) AS message "
        f"FROM {REJECTED} e JOIN {SCANS} s USING (scan_id, file_id) WHERE s.file_path = {literal(path)} "
        "GROUP BY e.line, e.line_byte_position, e.error_type) GROUP BY line, line_byte_position"
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


def as_utf8(path: str, folder: Path, encoding: str | None) -> str:
    """`path`, or a copy in UTF-8 without a mark of a file whose `encoding` is another one, stated or marked at its beginning.

    Bytes that are nothing in the encoding become bytes that are nothing in UTF-8: the reader rejects their line.
    """
    with Path(path).open("rb") as file:
        start = file.read(4)
    marked = next((name for bom, name in _BOMS.items() if start.startswith(bom)), None)
    name = codecs.lookup(marked or encoding or "utf-8").name
    if name == "utf-8":
        return path
    decoder = codecs.getincrementaldecoder(name)(errors=_UNDECODABLE)
    target = folder / "utf8"
    with Path(path).open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(_CHUNK):
            copy.write(decoder.decode(chunk).encode("utf-8", "surrogateescape"))
        copy.write(decoder.decode(b"", True).encode("utf-8", "surrogateescape"))
    return str(target)


def _undecodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


_UNDECODABLE = "mlops_assets.undecodable"
codecs.register_error(_UNDECODABLE, _undecodable)


def with_one_line_end(path: str, folder: Path, *, delimiter: str, quotation: str, escape: str) -> tuple[str, str]:
    """`path`, or a copy in which every record ends with a line feed, when there are several line ends; and the one of the records.

    Line ends within quotes stay as they are. The line end is spelled as DuckDB's option `new_line`.
    """
    if line_end := _only_line_end(path):
        return path, line_end
    pattern = rb"\r\n?"
    if quotation:
        sign, quoted, escaping = (re.escape(text.encode()) for text in (delimiter, quotation, escape))
        inside = rb"[^%b]*(?:%b%b[^%b]*)*" % (quoted, quoted, quoted, quoted)
        if escape and escape != quotation:
            inside = rb"(?:[^%b%b]|%b.)*" % (escaping, quoted, escaping)
        start = rb"(?:\A|(?<=%b)|(?<=[\r\n]))" % sign
        pattern = rb"%b%b%b%b|\r\n?" % (start, quoted, inside, quoted)
    target = folder / "one_line_end"
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        target.open("wb") as copy,
    ):
        written = 0
        for match in re.finditer(pattern, content, re.DOTALL):
            if content[match.start()] in b"\r":
                copy.write(content[written : match.start()] + b"\n")
                written = match.end()
        copy.write(content[written:])
    return str(target), "\\n"


def _only_line_end(path: str) -> str | None:
    feeds = returns = both = 0
    last = b""
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            feeds += chunk.count(b"\n")
            returns += chunk.count(b"\r")
            both += chunk.count(b"\r\n") + (last == b"\r" and chunk.startswith(b"\n"))
            last = chunk[-1:]
    if returns == 0:
        return "\\n"
    if feeds == returns == both:
        return "\\r\\n"
    return "\\r" if feeds == 0 else None
