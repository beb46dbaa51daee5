"""The types of the columns, and how their texts spell numbers, times and nulls: the narrowest that keeps every value as it is."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from mlops_assets.lake.sql import is_one_of
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.fitting import StagedColumns
from mlops_assets.operations.new_solution.nearly_typed import nearly_typed
from mlops_assets.operations.new_solution.number_signs import infer_number_signs
from mlops_assets.operations.new_solution.staged_rows import StagedRows
from mlops_assets.operations.new_solution.time_formats import TimeColumn, find_time_columns
from mlops_assets.sources.column_types import TextFormats

_NULLS = (
    "NA",
    " ",
    "  ",
    "N/A",
    "n/a",
    "#N/A",
    "NULL",
    "null",
    "None",
    "none",
    "-",
    "--",
    "?",
    ".",
    "nan",
    "NaN",
    "NaT",
    "k.A.",
    "missing",
)
"""Texts that people and programs write for a missing value."""

_YES_AND_NO = (("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"))
_LEADING_ZERO = "regexp_matches({value}, '^\\s*[+-]?0[0-9]')"


@dataclass(frozen=True)
class ColumnType:
    """The type of one column with the reason. `written` is the format of its times where that is not the standard one, `has_offset`
    whether they say their zone.
    """

    stated: str
    reason: str
    written: str | None = None
    has_offset: bool = True
    is_nested: bool = False


@dataclass(frozen=True)
class ColumnTypes:
    """The types of the columns by their names in the source, and the options and texts of nulls with which they are read."""

    types: Mapping[str, ColumnType]
    options: Mapping[str, Any]
    null_strings: tuple[str, ...]
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()


def infer_types(
    connection: duckdb.DuckDBPyConnection, staged: StagedRows, answers: Answers, *, has_exact_types: bool, prefers_comma: bool
) -> ColumnTypes:
    """The types of the staged columns. `prefers_comma`: signs of the file that speak for a decimal comma and the day before the month."""
    columns = StagedColumns(connection, staged)
    types = {name: _of_exact_type(columns, name, kind) for name, kind in staged.columns.items() if kind != "VARCHAR"}
    texts = [name for name, kind in staged.columns.items() if kind == "VARCHAR"]
    filled = columns.counts(texts, "{value} IS NOT NULL")
    types |= {name: ColumnType("varchar", "It has no value.") for name in texts if not filled[name]}
    rest = [name for name in texts if filled[name]]
    decisions: list[Decision] = []
    options: dict[str, Any] = {}
    formats = TextFormats()
    nulls = tuple(answers.null)
    if not has_exact_types:
        # What the texts of nulls are is found out with the signs of numbers, not before.
        options, found = infer_number_signs(columns, rest, answers, nulls or _NULLS, prefers_comma=prefers_comma)
        decisions += found
        formats = TextFormats.of(options)
        types |= _plain_types(columns, rest, formats, nulls)
    rest = [name for name in rest if name not in types]
    times, found = find_time_columns(columns, rest, answers, nulls, prefers_comma=prefers_comma)
    decisions += found
    types |= {name: _of_time(time) for name, time in times.items()}
    rest = [name for name in rest if name not in types]
    if not answers.null and not has_exact_types:
        tried = _plain_types(columns, rest, formats, _NULLS) | {
            name: _of_time(time)
            for name, time in find_time_columns(columns, rest, answers, _NULLS, prefers_comma=prefers_comma)[0].items()
        }
        nulls = _nulls_of(columns, list(tried))
        types |= tried
        if nulls:
            named = ", ".join(list(tried)[:3])
            decisions.append(Decision(field="null", value=",".join(nulls), reason=f"Without them {named} would be text."))
    digits = columns.counts([name for name in rest if name not in types], _LEADING_ZERO, nulls=nulls)
    nearly = {} if has_exact_types else nearly_typed(columns, list(digits), nulls)
    for name in texts:
        if name not in types:
            plain = "Texts: a number would lose its leading zeros." if digits.get(name) else "Texts."
            reason = nearly.get(name, plain)
            types[name] = ColumnType("varchar", reason, is_nested=_is_nested(columns, name))
    notes = tuple(f"{name}: {problem}" for name, problem in nearly.items())
    formats_of_times, types = _one_format_each({name: types[name] for name in staged.columns})
    return ColumnTypes(types, {**options, **formats_of_times}, nulls, tuple(decisions), notes)


def _of_exact_type(columns: StagedColumns, name: str, kind: str) -> ColumnType:
    """The type of a column that has one in its source."""
    plain = TextFormats()

    def fits(stated: str) -> bool:
        return bool(columns.fitting([name], stated, plain))

    stated = "varchar"
    if kind == "BOOLEAN":
        stated = "boolean"
    elif kind == "DATE":
        stated = "date"
    elif kind.startswith("TIMESTAMP"):
        has_offset = kind.endswith("WITH TIME ZONE")
        return ColumnType("timestamptz", f"{kind} in the source.", has_offset=has_offset)
    elif re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?", kind) or re.fullmatch(r"DECIMAL\(\d+,0\)", kind):
        small = kind in ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT")
        stated = "integer" if small else next((stated for stated in ("integer", "bigint") if fits(stated)), "varchar")
        # Keys of the same table may become larger than those of today.
        stated = "bigint" if kind == "BIGINT" else stated
    elif kind.startswith("DECIMAL") or kind in ("FLOAT", "DOUBLE"):
        stated = "double" if fits("double") else "varchar"
    is_nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")) or kind in ("BLOB", "JSON")
    return ColumnType(stated, f"{kind if len(kind) < 30 else kind[:30] + '...'} in the source.", is_nested=is_nested)


def _plain_types(
    columns: StagedColumns, names: Collection[str], formats: TextFormats, nulls: Collection[str]
) -> dict[str, ColumnType]:
    """The columns of `names` that are truth values or numbers."""
    filled = columns.counts(names, "{value} IS NOT NULL", nulls=nulls)
    names = [name for name in names if filled[name]]
    types = {name: ColumnType("boolean", reason) for name, reason in _truth_values(columns, names, formats, nulls).items()}
    zeros = columns.counts(names, _LEADING_ZERO, nulls=nulls)
    rest = [name for name in names if name not in types and not zeros[name]]
    fractions = columns.counts(rest, f"contains({{value}}, '{formats.decimal}')", nulls=nulls)
    for stated, reason in (("integer", "Whole numbers."), ("bigint", "Large whole numbers.")):
        whole = [name for name in rest if not fractions[name] and name not in types]
        types |= {name: ColumnType(stated, reason) for name in columns.fitting(whole, stated, formats, nulls=nulls)}
    rest = [name for name in rest if name not in types]
    types |= {name: ColumnType("double", "Numbers.") for name in columns.fitting(rest, "double", formats, nulls=nulls)}
    return types


def _truth_values(columns: StagedColumns, names: Collection[str], formats: TextFormats, nulls: Collection[str]) -> dict[str, str]:
    """Columns whose texts are the two words of one pair, or one word that means nothing else."""
    words_of_pairs = [word for pair in _YES_AND_NO for word in pair]
    others = columns.counts(names, f"NOT {is_one_of('lower(trim({value}))', words_of_pairs)}", nulls=nulls)
    fitting = columns.fitting([name for name in names if not others[name]], "boolean", formats, nulls=nulls)
    found = {}
    for name in fitting:
        text = f"lower(trim({columns.raw(name, nulls)}))"
        rows = columns.connection.execute(
            f"SELECT DISTINCT {text} FROM temp.main.staged_source WHERE {text} IS NOT NULL"
        ).fetchall()
        words = {word for (word,) in rows}
        if any(words == set(pair) for pair in _YES_AND_NO) or words in ({"true"}, {"false"}):
            found[name] = f"{' and '.join(sorted(words))}."
    return found


def _nulls_of(columns: StagedColumns, names: Collection[str]) -> tuple[str, ...]:
    """Those of the usual texts of nulls that occur in the columns `names`."""
    occurring: set[str] = set()
    for name in names:
        value = columns.staged.sql(name)
        rows = columns.connection.execute(
            f"SELECT DISTINCT {value} FROM temp.main.staged_source WHERE {value} IN (SELECT unnest(?))", [list(_NULLS)]
        ).fetchall()
        occurring |= {text for (text,) in rows}
    return tuple(text for text in _NULLS if text in occurring)


def _is_nested(columns: StagedColumns, name: str) -> bool:
    """Whether the texts are lists or objects of JSON."""
    counts = columns.counts([name], "{value} IS NOT NULL AND NOT regexp_matches({value}, '^\\s*[\\[{].*[\\]}]\\s*$')")
    return counts[name] == 0


def _of_time(time: TimeColumn) -> ColumnType:
    return ColumnType(time.stated, time.reason, written=time.written, has_offset=time.has_offset)


def _one_format_each(types: Mapping[str, ColumnType]) -> tuple[dict[str, Any], dict[str, ColumnType]]:
    """The option of a table's format of dates, and that of times, where all of its columns have it; the types.

    Of another column the format stays with its type, and an expression of its own reads it.
    """
    options: dict[str, Any] = {}
    plain = dict(types)
    for option, kinds in (("dateformat", ("date",)), ("timestampformat", ("timestamp", "timestamptz"))):
        # A format of the table would be that of the columns with standard times, too.
        of_kind = {name: kind for name, kind in types.items() if kind.stated in kinds and "in the source" not in kind.reason}
        written = {kind.written for kind in of_kind.values()}
        if len(written) == 1 and None not in written:
            [options[option]] = written
            plain |= {name: ColumnType(kind.stated, kind.reason, has_offset=kind.has_offset) for name, kind in of_kind.items()}
    return options, plain
