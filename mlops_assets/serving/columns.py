"""Columns of a request: the types of JSON values by the SQL types of dbt models, with their bounds.

The same types decode requests, describe them in the OpenAPI and say in an error what is allowed.
"""

import re
from datetime import date, datetime
from typing import Annotated, Any

from msgspec import Meta

from mlops_assets.core.missing_values import LARGEST_FLOAT32
from mlops_assets.schema.column_names import RESERVED, fold

_INTEGERS = {
    **dict.fromkeys(["TINYINT", "INT1"], (-(2**7), 2**7 - 1)),
    **dict.fromkeys(["SMALLINT", "INT2", "SHORT"], (-(2**15), 2**15 - 1)),
    **dict.fromkeys(["INTEGER", "INT", "INT4", "SIGNED"], (-(2**31), 2**31 - 1)),
    **dict.fromkeys(["BIGINT", "INT8", "LONG"], (-(2**63), 2**63 - 1)),
    "UTINYINT": (0, 2**8 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
    "UBIGINT": (0, 2**63 - 1),
}
_TEXTS = {"VARCHAR", "TEXT", "STRING", "CHAR", "BPCHAR", "UUID"}
_NUMBERS = {"DOUBLE", "FLOAT", "REAL", "FLOAT4", "FLOAT8", "DECIMAL", "NUMERIC"}
_MOMENTS = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", "TIMESTAMP", "DATETIME"}

TEXT_PATTERN = "^[^\\u0000]*$"
IDENTIFIER_PATTERN = "^[^\\u0000-\\u001f\\u007f]+$(?!\\n)"
"""Identifiers go into headers and logs: no control characters."""

Text = Annotated[str, Meta(max_length=10_000, pattern=TEXT_PATTERN, description="a string without NUL")]
Identifier = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=IDENTIFIER_PATTERN, description="a string without control characters")
]
Number = Annotated[float, Meta(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32, description="a number")]
Boolean = Annotated[bool, Meta(description="true or false")]
Day = Annotated[date, Meta(description="a date, such as 2013-07-01")]
Moment = Annotated[datetime, Meta(tz=True, description="a time with its offset from UTC, such as 2013-07-01T12:00:00Z")]


class UnknownTypeError(ValueError):
    """A SQL type that has no value in JSON."""


def check_column(name: str, sql_type: str) -> None:
    """Raise ValueError unless a caller can supply the column `name` of `sql_type`."""
    if fold(name) in RESERVED["request"]:
        raise ValueError(f"a request has a field {name} of another meaning: rename the column")
    json_type(sql_type)


def type_family(sql_type: str) -> str:
    """The family of `sql_type`, in words: types of one family are equal and ordered as they look, without a cast that decides."""
    name = re.sub(r"\s*\(.*\)", "", sql_type).strip().upper()
    families = {
        "whole number": {*_INTEGERS, "HUGEINT"},
        "text": _TEXTS - {"UUID"},
        "number": _NUMBERS,
        "time with zone": {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"},
        "time without zone": {"TIMESTAMP", "DATETIME", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"},
        "boolean": {"BOOLEAN", "BOOL"},
    }
    return next((family for family, names in families.items() if name in names), name.lower())


def json_type(sql_type: str) -> Any:
    """The msgspec type of a value of `sql_type`, as dbt models declare it. Raises UnknownTypeError for one that has none."""
    name = re.sub(r"\s*\(.*\)", "", sql_type).strip().upper()
    if name in _INTEGERS:
        least, most = _INTEGERS[name]
        return Annotated[int, Meta(ge=least, le=most, description=f"a whole number from {least} to {most}")]
    for names, kind in ((_TEXTS, Text), (_NUMBERS, Number), (_MOMENTS, Moment)):
        if name in names:
            return kind
    if name in ("BOOLEAN", "BOOL"):
        return Boolean
    if name == "DATE":
        return Day
    allowed = ", ".join(sorted({*_INTEGERS, *_TEXTS, *_NUMBERS, *_MOMENTS, "BOOLEAN", "DATE"}))
    raise UnknownTypeError(f"{sql_type!r} is no type that a request can give; use one of {allowed}")


def feature_type(arrow_type: str) -> Any:
    """The msgspec type of a feature given by its Arrow type, as the contract names it."""
    if arrow_type == "bool":
        return Boolean
    if "string" in arrow_type:
        return Text
    return Number
