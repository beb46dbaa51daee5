"""The one cast of a source's column: from its exact type to the stated type, and null where the value would not stay the same.

Nothing is guessed and nothing is lost in silence: a value is kept only when casting it back gives what stood in the source. Text is
read by the forms below, which are narrower than what DuckDB casts ('1_000', '0x10', '24-01-05', 'infinity' are refused).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_assets.lake.sql import is_one_of, literal

_WHOLE = r"\s*[+-]?[0-9]+(\.0*)?\s*"
_NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
_NAN = r"(?i)\s*[+-]?nan\s*"
_DAY = r"\s*[0-9]{4}(-[0-9]{1,2}-|/[0-9]{1,2}/)[0-9]{1,2}"
# More digits of a second than microseconds would be lost.
_TIME = r"[ T]([01]?[0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?"
_UTC = r"(Z| UTC|[+-]00(:?00)?)?\s*"
_OFFSET = r"[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?\s*"
_TRUE, _FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
_EXACT_IN_DOUBLE = 2**53
"""From here on a double cannot hold every whole number."""

_SMALL = {"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"}
_INTEGERS = {*_SMALL, "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE"}
_TIMESTAMPS = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}
_INSTANT = "TIMESTAMP WITH TIME ZONE"
NANOSECOND_INSTANT = "TIMESTAMP_NS WITH TIME ZONE"
"""Instants in columns of the DuckDB type TIMESTAMP_NS: DuckDB has none with a zone."""
_AS_TEXT = {"UUID", "JSON", "BIGNUM", "TIME", "TIME WITH TIME ZONE", "TIME_NS", "INTERVAL", "BIT"}
"""Types whose values are read as their text."""

_RANGE = {
    "date": "BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
    "timestamp": "BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'",
}

_EPOCH_RANGE = "BETWEEN epoch_us(TIMESTAMP '0001-01-01') AND epoch_us(TIMESTAMP '9999-12-31 23:59:59.999999')"


@dataclass(frozen=True)
class TextFormats:
    """How the texts of a source spell dates, times and numbers, where it is not the standard way."""

    date: str | None = None
    timestamp: str | None = None
    decimal: str = "."
    thousands: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TextFormats":
        """The formats among the `options` of a table."""
        return cls(
            date=options.get("dateformat"),
            timestamp=options.get("timestampformat"),
            decimal=str(options.get("decimal_separator", ".")),
            thousands=options.get("thousands"),
        )


FORMAT_OPTIONS = frozenset({"dateformat", "timestampformat", "decimal_separator", "thousands"})
"""The options that `TextFormats` applies, in place of DuckDB's reader."""


@dataclass(frozen=True)
class Cast:
    """SQL of one cast in three steps, each a column of the next: `given`, `candidate`, `value` (null unless it is the same value).

    `nan` is true where the value that stood there is not a number, which is a missing value.
    """

    given: str
    candidate: str
    value: str
    nan: str = "false"


def cast(raw: str, source: str, stated: str, *, given: str, candidate: str, formats: TextFormats) -> Cast:
    """The cast of the SQL expression `raw` of the DuckDB type `source` to the `stated` type of a YAML column.

    `given` and `candidate` are the names of the columns that hold the first two steps.
    """
    prepared, kind = _prepare(raw, source)
    if kind == "TEXT":
        return _from_text(prepared, stated, given=given, candidate=candidate, formats=formats)
    if stated == "varchar":
        return Cast(prepared, "NULL", _to_text(given, kind), nan=_is_nan(given, kind))
    kind = "TIMESTAMP_NS" if kind == NANOSECOND_INSTANT else kind
    if kind in _INTEGERS or kind in _FLOATS or _is_decimal(kind):
        return _from_number(prepared, kind, stated, given=given, candidate=candidate)
    if kind == "BOOLEAN" and stated not in ("date", "timestamp", "timestamptz"):
        return Cast(prepared, "NULL", f"CAST({given} AS {stated})")
    if (kind == "DATE" or kind in _TIMESTAMPS or kind == _INSTANT) and stated in ("date", "timestamp", "timestamptz"):
        return _from_time(prepared, kind, stated, given=given, candidate=candidate)
    return Cast(prepared, "NULL", f"CAST(NULL AS {stated})")


def _prepare(raw: str, source: str) -> tuple[str, str]:
    """SQL for the value in a type that has rules here, and the name of that type; `TEXT` for all kinds of text."""
    if source == "VARCHAR":
        return raw, "TEXT"
    if source == "BLOB":
        # Files of older writers do not mark their texts as such.
        return f"TRY(decode({raw}))", "TEXT"
    if (source.startswith("ENUM(") and source.endswith(")")) or source in _AS_TEXT:
        return f"CAST({raw} AS VARCHAR)", "TEXT"
    return raw, source


def _is_decimal(kind: str) -> bool:
    """Whether the type is a decimal, not a list of them."""
    return re.fullmatch(r"DECIMAL\(\d+,\s*\d+\)", kind) is not None


def _is_nan(value: str, kind: str) -> str:
    return f"coalesce(isnan({value}), false)" if kind in _FLOATS else "false"


def _from_text(text: str, stated: str, *, given: str, candidate: str, formats: TextFormats) -> Cast:
    # Null where the bytes are no text.
    nan = f"coalesce(regexp_full_match({given}, {literal(_NAN)}), false)"
    match stated:
        case "varchar":
            return Cast(text, "NULL", given)
        case "boolean":
            word = f"lower(trim({given}))"
            known = f"CASE WHEN {is_one_of(word, _TRUE)} THEN true WHEN {is_one_of(word, _FALSE)} THEN false END"
            return Cast(text, "NULL", known)
        case "integer" | "bigint":
            # The usual spelling is compared first: a regular expression takes longer.
            value = (
                f"CASE WHEN CAST({candidate} AS VARCHAR) = {given} THEN {candidate} "
                f"WHEN regexp_full_match({given}, {literal(_WHOLE)}) THEN {candidate} END"
            )
            return Cast(_plain_number(text, formats), f"TRY_CAST({given} AS {stated})", value, nan=nan)
        case "double":
            return Cast(_plain_number(text, formats), f"TRY_CAST({given} AS DOUBLE)", _double_of_text(given, candidate), nan=nan)
        case _:
            return _time_of_text(text, stated, given=given, candidate=candidate, formats=formats)


def _plain_number(text: str, formats: TextFormats) -> str:
    """SQL for a number as a program writes it, of a text with the stated separators; other texts become one that is no number."""
    if formats.decimal == "." and formats.thousands is None:
        return text
    decimal, digits = re.escape(formats.decimal), "[0-9]+"
    plain = text
    if formats.thousands is not None:
        digits = f"([0-9]+|[0-9]{{1,3}}({re.escape(formats.thousands)}[0-9]{{3}})+)"
        plain = f"replace({plain}, {literal(formats.thousands)}, '')"
    pattern = rf"\s*[+-]?({digits}({decimal}[0-9]*)?|{decimal}[0-9]+)([eE][+-]?[0-9]+)?\s*"
    plain = f"replace({plain}, {literal(formats.decimal)}, '.')"
    special = f"regexp_full_match({text}, {literal(_NAN)})"
    return (
        f"CASE WHEN regexp_full_match({text}, {literal(pattern)}) OR {special} THEN {plain} WHEN {text} IS NOT NULL THEN '#' END"
    )


def _double_of_text(given: str, candidate: str) -> str:
    """A double is the nearest to a decimal fraction; digits before the point, and whether it is zero, must stay as they are."""
    exact = _is_whole_number(candidate, f"ltrim(trim({given}), '+')")
    return (
        f"CASE WHEN {candidate} IS NULL OR NOT isfinite({candidate}) THEN NULL "
        f"WHEN abs({candidate}) < {_EXACT_IN_DOUBLE} AND CAST({candidate} AS VARCHAR) = {given} THEN {candidate} "
        f"WHEN NOT regexp_full_match({given}, {literal(_NUMBER)}) THEN NULL "
        f"WHEN {candidate} = 0 THEN CASE WHEN regexp_full_match({given}, '[^1-9eE]*([eE].*)?') THEN {candidate} END "
        f"WHEN abs({candidate}) < {_EXACT_IN_DOUBLE} OR contains(lower({given}), 'e') THEN {candidate} "
        f"WHEN abs({candidate}) < 1e38 AND {exact} THEN {candidate} END"
    )


def _is_whole_number(candidate: str, text: str) -> str:
    """SQL: the double is the whole number that `text` writes without an exponent. From 2**53 on every double is a whole number."""
    whole, fraction = (f"split_part({text}, '.', {part})" for part in (1, 2))
    return f"(TRY_CAST({candidate} AS HUGEINT) = TRY_CAST({whole} AS HUGEINT) AND rtrim({fraction}, '0') = '')"


def _time_of_text(text: str, stated: str, *, given: str, candidate: str, formats: TextFormats) -> Cast:
    written = formats.date if stated == "date" else formats.timestamp
    if written is not None:
        # `%Y` takes the year 24, too.
        plausible = f"CASE WHEN year({candidate}) BETWEEN 1000 AND 9999 THEN {candidate} END"
        moment = f"try_strptime({given}, {literal(written)})"
        if stated == "timestamptz":
            # Of a format with an offset the result has one.
            return Cast(text, _utc(moment, written), plausible)
        if stated == "timestamp" and "%z" in written:
            return Cast(text, "NULL", "CAST(NULL AS TIMESTAMP)")
        value = (
            plausible if stated == "timestamp" else f"CASE WHEN CAST(CAST({candidate} AS DATE) AS TIMESTAMP) = {candidate} THEN "
        )
        return Cast(text, moment, value if stated == "timestamp" else f"{value}CAST({plausible} AS DATE) END")
    local = f"{_DAY}({_TIME}{_UTC})?\\s*"
    if stated == "timestamptz":
        # A text without an offset is UTC; DuckDB would take the session's zone, or that of the text above.
        value = (
            f"CASE WHEN {candidate} {_RANGE['timestamp']} AND regexp_full_match({given}, {literal(local)}) "
            f"THEN make_timestamptz(epoch_us({candidate})) "
            f"WHEN {candidate} {_RANGE['timestamp']} AND regexp_full_match({given}, {literal(_DAY + _TIME + _OFFSET)}) "
            f"AND epoch_us(TRY_CAST({given} AS TIMESTAMPTZ)) {_EPOCH_RANGE} THEN TRY_CAST({given} AS TIMESTAMPTZ) END"
        )
        return Cast(text, f"TRY_CAST({given} AS TIMESTAMP)", value)
    if stated == "timestamp":
        value = (
            f"CASE WHEN {candidate} {_RANGE['timestamp']} AND (CAST({candidate} AS VARCHAR) = {given} "
            f"OR regexp_full_match({given}, {literal(local)})) THEN {candidate} END"
        )
        return Cast(text, f"TRY_CAST({given} AS TIMESTAMP)", value)
    value = (
        f"CASE WHEN {candidate} {_RANGE['date']} THEN CASE WHEN CAST({candidate} AS VARCHAR) = {given} THEN {candidate} "
        f"WHEN regexp_full_match({given}, {literal(local)}) AND TRY_CAST({given} AS TIMESTAMP) = {candidate} THEN {candidate} END END"
    )
    return Cast(text, f"TRY_CAST({given} AS DATE)", value)


def _utc(moment: str, written: str) -> str:
    return moment if "%z" in written or "%Z" in written else f"make_timestamptz(epoch_us({moment}))"


def _to_text(given: str, kind: str) -> str:
    if kind in _FLOATS:
        # The identifiers of a column with gaps are often written as doubles.
        whole = f"{given} = trunc({given}) AND abs({given}) < 9e18"
        return (
            f"CASE WHEN NOT isfinite({given}) THEN NULL WHEN {whole} THEN CAST(CAST({given} AS BIGINT) AS VARCHAR) "
            f"ELSE CAST({given} AS VARCHAR) END"
        )
    if kind == _INSTANT:
        return f"CAST(make_timestamp(epoch_us({given})) AS VARCHAR) || '+00'"
    if kind == NANOSECOND_INSTANT:
        return f"{_to_text(given, 'TIMESTAMP_NS')} || '+00'"
    if kind == "DATE" or kind in _TIMESTAMPS:
        return f"CASE WHEN isfinite({given}) THEN CAST({given} AS VARCHAR) END"
    if _is_decimal(kind):
        # DuckDB writes `.50`.
        return f"regexp_replace(CAST({given} AS VARCHAR), '^(-?)[.]', '\\10.')"
    if kind in _INTEGERS or kind == "BOOLEAN":
        return f"CAST({given} AS VARCHAR)"
    # Of decimals like `.50` DuckDB makes what is no JSON.
    exact = re.sub(r"DECIMAL\(\d+,\d+\)", "VARCHAR", kind)
    return f"CAST(to_json({given if exact == kind else f'CAST({given} AS {exact})'}) AS VARCHAR)"


def _from_number(number: str, kind: str, stated: str, *, given: str, candidate: str) -> Cast:
    nan = _is_nan(given, kind)
    if stated == "boolean":
        return Cast(number, "NULL", f"CASE WHEN {given} = 1 THEN true WHEN {given} = 0 THEN false END", nan=nan)
    if stated in ("date", "timestamp", "timestamptz"):
        return Cast(number, "NULL", f"CAST(NULL AS {stated})", nan=nan)
    same = f"CASE WHEN TRY_CAST({candidate} AS {kind}) = {given} THEN {candidate} END"
    if stated in ("integer", "bigint"):
        return Cast(number, f"TRY_CAST({given} AS {stated})", candidate if kind in _INTEGERS else same, nan=nan)
    if kind in _FLOATS:
        return Cast(number, f"CAST({given} AS DOUBLE)", f"CASE WHEN isfinite({candidate}) THEN {candidate} END", nan=nan)
    if kind in _INTEGERS:
        return Cast(number, f"CAST({given} AS DOUBLE)", candidate if kind in _SMALL else same)
    # By way of text: DuckDB divides two rounded numbers, and multiplies a double that it makes a decimal.
    digits = f"CAST({given} AS VARCHAR)"
    value = f"CASE WHEN abs({candidate}) < {_EXACT_IN_DOUBLE} OR {_is_whole_number(candidate, digits)} THEN {candidate} END"
    precision = int(re.findall(r"\d+", kind)[0])
    return Cast(number, f"CAST({given} AS DOUBLE)" if precision <= 15 else f"CAST({digits} AS DOUBLE)", value)


def _from_time(moment: str, kind: str, stated: str, *, given: str, candidate: str) -> Cast:
    if stated == "timestamptz":
        if kind == _INSTANT:
            return Cast(moment, "NULL", f"CASE WHEN isfinite({given}) THEN {given} END")
        same = f"CASE WHEN isfinite({candidate}) AND TRY_CAST({candidate} AS {kind}) = {given} THEN make_timestamptz(epoch_us({candidate})) END"
        return Cast(moment, f"TRY_CAST({given} AS TIMESTAMP)", same)
    if kind == _INSTANT:
        # Null for infinity.
        moment, kind = f"make_timestamp(epoch_us({moment}))", "TIMESTAMP"
    same = f"CASE WHEN isfinite({candidate}) AND TRY_CAST({candidate} AS {kind}) = {given} THEN {candidate} END"
    return Cast(moment, f"TRY_CAST({given} AS {stated})", same)
