"""JSON files as DuckDB queries: each object becomes a row of texts, with all digits as they stand; what is no object is rejected.

DuckDB's reader decides types from the first rows and prints numbers anew, so it only splits the file here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_assets.lake.sql import literal, quote
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.csv_reader import FIXED, REJECTED, SCANS, reader_options, rejected_records, with_one_line_end
from mlops_assets.sources.extract import REASON, ROW, SOURCE, Extract, Field, SourcePart

_TEXT, _KEYS, _PROBLEM, _PLAIN, _MARKED, _VALUES = map(internal, ("text", "keys", "problem", "plain", "is_marked", "values"))

_OPEN, _CLOSE, _SIGN = "chr(30)", "chr(31)", "chr(1) || chr(1)"
_SIGN_IN_JSON = "\\u0001\\u0001"
_PART = r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?'
_PRINTED_OTHERWISE = r"\.[0-9]*0([^0-9]|$)|[0-9][eE]|[0-9.]{17,}|[:,\[]\s*-0|0\.000"
"""Numbers that DuckDB would print in another way than they stand in the file, if there are any in a line."""
_HAS_DIGITS = r"^-?([0-9]+[.eE]|0$)|^[{\[][^0-9]*[0-9]"
"""Values other than whole numbers: those whose digits matter, unless they become a double."""
_LARGE = r"[0-9]{16,}\.|[0-9][eE]\+?[0-9]"
"""Numbers whose digits matter for a double, too: DuckDB prints `6.868531932247569e+16` without its exponent."""


def json_extract(part: SourcePart) -> Extract:
    """The objects of a JSON file: one a line, or the elements of one array."""
    connection, label, wanted = part.connection, part.label, part.wanted
    staged = f"temp.main.{quote(internal(f'json_{part.number}'))}"
    for table in (REJECTED, SCANS, staged):
        part.cleanup.callback(connection.execute, f"DROP TABLE IF EXISTS {table}")
    rows, rejected_lines = _objects(part.path, label, part.folder, dict(part.options))
    problem = (
        f"CASE WHEN {_KEYS} IS NULL THEN 'is no JSON' "
        f"WHEN len({_KEYS}) = 0 AND json_type({_TEXT}) <> 'OBJECT' THEN 'is no JSON object' "
        f"WHEN list_unique({_KEYS}) <> len({_KEYS}) THEN 'has a key twice' "
        f"WHEN contains({_TEXT}, {literal(_SIGN_IN_JSON)}) THEN 'has the character U+0001 twice' END"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {staged} AS SELECT *, {problem} AS {_PROBLEM} FROM (SELECT line AS {_TEXT}, "
        f"CASE WHEN json_valid(line) THEN json_keys(line) END AS {_KEYS} FROM ({rows}) WHERE trim(line) <> '')"
    )
    keys = connection.execute(
        f"SELECT DISTINCT unnest({_KEYS}) AS key FROM {staged} WHERE {_PROBLEM} IS NULL ORDER BY key"
    ).fetchall()
    names = [key for (key,) in keys]
    # Doubles last.
    read = sorted((name for name in names if name in wanted), key=lambda name: wanted[name] == "double")
    fields = {name: Field("NULL", "VARCHAR") for name in names}
    fields |= {name: Field(_unmarked(f"{_VALUES}[{place}]"), "VARCHAR") for place, name in enumerate(read, start=1)}
    line = f"CAST(to_json({{'line': {_TEXT}}}) AS VARCHAR)"
    rejected = (
        f"SELECT {literal(label)} AS {SOURCE}, {_PROBLEM} AS {REASON}, {line} AS {ROW} FROM {staged} WHERE {_PROBLEM} IS NOT NULL"
    )
    texts = f"(SELECT {_TEXT} FROM {staged} WHERE {_PROBLEM} IS NULL)"
    return Extract(
        label=label,
        fields=fields,
        relation=_values(texts, read, exact=sum(wanted[name] != "double" for name in read)) if read else texts,
        row=_TEXT,
        rejected=f"{rejected} UNION ALL {rejected_lines}" if rejected_lines else rejected,
        is_sparse=not names,
    )


def _objects(path: str, label: str, folder: Path, options: dict[str, Any]) -> tuple[str, str | None]:
    """SQL for the text `line` of each object in the file, and for the lines that could not be read."""
    layout = options.pop("format", "auto")
    if layout == "auto":
        layout = _layout(path)
    if layout != "newline_delimited":
        reader = f"read_json_objects({literal(path)}, format = {literal(layout)}{reader_options(options)})"
        return f"SELECT CAST(json AS VARCHAR) AS line FROM {reader}", None
    path, line_end = with_one_line_end(path, folder, delimiter="", quotation="", escape="")
    limit = options.pop("maximum_object_size", 16 << 20)
    # A buffer holds several lines.
    single = {
        **FIXED,
        "header": False,
        "delim": "\x01",
        "quote": "",
        "escape": "",
        "comment": "",
        "max_line_size": limit,
        "new_line": line_end,
    }
    single |= {"buffer_size": 2 * limit + (1 << 20)}
    lines = f"SELECT line FROM read_csv({literal(path)}, columns = {{'line': 'VARCHAR'}}{reader_options(single)})"
    return lines, rejected_records(path, label)


def _values(texts: str, read: Sequence[str], *, exact: int) -> str:
    """SQL that adds the list of the values of `read` to `texts`, the digits of the first `exact` as they stand.

    DuckDB prints numbers anew. Where that may change one, every number of the text becomes a string with a sign before the values are taken.
    """
    pointers = [literal("/" + name.replace("~", "~0").replace("/", "~1")) for name in read]
    # Of strings the signs are taken away again.
    parts = f"regexp_replace({_TEXT}, {literal(_PART)}, {_OPEN} || '\\0' || {_CLOSE}, 'g')"
    strings = f"""replace(replace({parts}, {_OPEN} || '"', '"'), '"' || {_CLOSE}, '"')"""
    marked = f"""replace(replace({strings}, {_OPEN}, '"{_SIGN_IN_JSON}'), {_CLOSE}, '"')"""
    plain = f"json_extract({_TEXT}, [{', '.join(pointers[:exact])}])" if exact else "NULL"
    matter = [f"regexp_matches(CAST({_PLAIN}[{place}] AS VARCHAR), {literal(_HAS_DIGITS)})" for place in range(1, exact + 1)]
    matter.append(f"regexp_matches({_TEXT}, {literal(_LARGE)})")
    everything = f"[{', '.join(pointers)}]"
    is_marked = f"regexp_matches({_TEXT}, {literal(_PRINTED_OTHERWISE)}) AND ({' OR '.join(matter)})"
    return (
        f"(SELECT {_TEXT}, {_MARKED}, CASE WHEN {_MARKED} THEN json_extract_string({marked}, {everything}) "
        f"ELSE json_extract_string({_TEXT}, {everything}) END AS {_VALUES} "
        f"FROM (SELECT {_TEXT}, coalesce({is_marked}, false) AS {_MARKED} FROM (SELECT {_TEXT}, {plain} AS {_PLAIN} FROM {texts})))"
    )


def _unmarked(value: str) -> str:
    """SQL for a value as it stands in the file: its number, or a nested value with its numbers."""
    nested = f"""regexp_replace({value}, '"\\\\u0001\\\\u0001([^"]*)"', '\\1', 'g')"""
    return (
        f"CASE WHEN NOT {_MARKED} THEN {value} WHEN starts_with({value}, {_SIGN}) THEN substr({value}, 3) "
        f"WHEN contains({value}, {literal(_SIGN_IN_JSON)}) THEN {nested} ELSE {value} END"
    )


def _layout(path: str) -> str:
    """Return the layout of the objects: in an array, one a line, or anyhow when the first line is a brace alone."""
    with Path(path).open("rb") as file:
        start = file.read(1 << 16).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return "array"
    lines = start.splitlines()
    return "unstructured" if lines and lines[0].strip() == "{" else "newline_delimited"
