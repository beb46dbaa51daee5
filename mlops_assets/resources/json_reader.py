"""JSON files as DuckDB queries: each object becomes a row of texts, with all digits as they stand; what is no object is rejected.

DuckDB's reader decides types from the first rows and prints numbers anew, so it only splits the file here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.column_names import internal
from mlops_assets.resources.csv_reader import reader_options, with_one_line_end
from mlops_assets.resources.extract import REASON, ROW, SOURCE, Extract, Field
from mlops_assets.resources.lake import literal, quote

_TEXT, _MARKED, _PROBLEM, _VALUES = internal("text"), internal("marked"), internal("problem"), internal("values")

_OPEN, _CLOSE, _SIGN = "chr(30)", "chr(31)", "chr(1) || chr(1)"
_SIGN_IN_JSON = "\\u0001\\u0001"
_PART = r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?'
_PRINTED_OTHERWISE = r"\.[0-9]*0([^0-9]|$)|[0-9][eE]|[0-9.]{17,}|-0|0\.000"
"""Numbers that DuckDB would print in another way than they stand in the file, if in a line at all."""


def json_extract(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    label: str,
    *,
    number: int,
    folder: Path,
    wanted: Collection[str],
    options: Mapping[str, Any],
) -> Extract:
    """The objects of the JSON file at `path`, which is UTF-8: one a line, or the elements of one array.

    Leaves a temporary table of the texts, told apart by `number`. `wanted` are the keys that are read.
    """
    staged = f"temp.main.{quote(internal(f'json_{number}'))}"
    given = dict(options)
    layout = given.pop("format", "auto")
    if layout == "auto":
        layout = _layout(path)
    if layout == "newline_delimited":
        path = with_one_line_end(path, folder, delimiter="", quotation="", escape="")
        single = {
            "auto_detect": False,
            "ignore_errors": True,
            "header": False,
            "delim": "\x01",
            "quote": "",
            "escape": "",
            "comment": "",
        }
        limit = given.pop("maximum_object_size", 16 << 20)
        # A buffer holds several lines.
        single |= {"max_line_size": limit, "buffer_size": 2 * limit + (1 << 20)}
        rows = f"SELECT line FROM read_csv({literal(path)}, columns = {{'line': 'VARCHAR'}}{reader_options(single)})"
    else:
        rows = f"SELECT CAST(json AS VARCHAR) AS line FROM read_json_objects({literal(path)}, format = {literal(layout)}{reader_options(given)})"
    problem = (
        f"CASE WHEN NOT json_valid(line) THEN 'is no JSON' WHEN json_type(line) <> 'OBJECT' THEN 'is no JSON object' "
        "WHEN list_unique(json_keys(line)) <> len(json_keys(line)) THEN 'has a key twice' "
        f"WHEN contains(line, {literal(_SIGN_IN_JSON)}) THEN 'has the character U+0001 twice' END"
    )
    # Of strings the signs are taken away again, numbers stay as marked strings.
    tokens = f"regexp_replace({_TEXT}, {literal(_PART)}, {_OPEN} || '\\0' || {_CLOSE}, 'g')"
    strings = f"""replace(replace({tokens}, {_OPEN} || '"', '"'), '"' || {_CLOSE}, '"')"""
    marked = f"""replace(replace({strings}, {_OPEN}, '"{_SIGN_IN_JSON}'), {_CLOSE}, '"')"""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {staged} AS SELECT *, CASE WHEN {_PROBLEM} IS NOT NULL THEN NULL "
        f"WHEN regexp_matches({_TEXT}, {literal(_PRINTED_OTHERWISE)}) THEN {marked} ELSE {_TEXT} END AS {_MARKED} "
        f"FROM (SELECT line AS {_TEXT}, {problem} AS {_PROBLEM} FROM ({rows}) WHERE trim(line) <> '')"
    )
    keys = connection.execute(
        f"SELECT DISTINCT unnest(json_keys({_TEXT})) AS key FROM {staged} WHERE {_PROBLEM} IS NULL ORDER BY key"
    ).fetchall()
    names = [key for (key,) in keys]
    read = [name for name in names if name in wanted]
    pointers = ", ".join(literal("/" + name.replace("~", "~0").replace("/", "~1")) for name in read)
    values = f"json_extract_string({_MARKED}, [{pointers}])" if read else "CAST([] AS VARCHAR[])"
    fields = {name: Field("NULL", "VARCHAR") for name in names}
    fields |= {name: Field(_unmarked(f"{_VALUES}[{place}]"), "VARCHAR") for place, name in enumerate(read, start=1)}
    line = f"CAST(to_json({{'line': {_TEXT}}}) AS VARCHAR)"
    rejected = f"SELECT {literal(label)} AS {SOURCE}, {_PROBLEM} AS {REASON}, {line} AS {ROW} FROM {staged}"
    return Extract(
        label=label,
        fields=fields,
        relation=f"(SELECT {_TEXT}, {values} AS {_VALUES} FROM {staged} WHERE {_PROBLEM} IS NULL)",
        row=_TEXT,
        rejected=f"{rejected} WHERE {_PROBLEM} IS NOT NULL",
        is_sparse=not names,
    )


def _unmarked(value: str) -> str:
    """SQL for a value as it stands in the file: its number, or a nested value with its numbers."""
    nested = f"""regexp_replace({value}, '"\\\\u0001\\\\u0001([^"]*)"', '\\1', 'g')"""
    return (
        f"CASE WHEN starts_with({value}, {_SIGN}) THEN substr({value}, 3) "
        f"WHEN contains({value}, {literal(_SIGN_IN_JSON)}) THEN {nested} ELSE {value} END"
    )


def _layout(path: str) -> str:
    """How the objects are laid out: in an array, one a line, or anyhow when the first line is a brace alone."""
    with Path(path).open("rb") as file:
        start = file.read(1 << 16).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return "array"
    lines = start.splitlines()
    return "unstructured" if lines and lines[0].strip() == "{" else "newline_delimited"
