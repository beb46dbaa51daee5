"""What a value of a source must become, by plain Python alone: the same value in the stated type, null, or a reject."""

import json
import math
import re
import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

REJECT = object()
"""The value cannot become the stated type."""

RANGES = {"integer": (-(2**31), 2**31 - 1), "bigint": (-(2**63), 2**63 - 1)}
TRUE, FALSE = {"true", "t", "yes", "y", "1", "1.0"}, {"false", "f", "no", "n", "0", "0.0"}
SPACE = " \t\n\r\x0b\x0c"
"""What stands around a number or a time without a meaning."""
NUMBER = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]+))?")
MOMENT = re.compile(
    r"([0-9]{4})(?:-([0-9]{1,2})-|/([0-9]{1,2})/)([0-9]{1,2})"
    r"(?:[ T]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6})0*)?)?(Z| UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)


class Json(str):
    """A nested JSON value by its text, compared without regard to spaces."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and loaded(self) == loaded(other)

    __hash__ = str.__hash__


def loaded(text: str) -> Any:
    """The content of a JSON text, its numbers as they stand."""
    return json.loads(text, parse_float=lambda number: ("number", number), parse_int=lambda number: ("number", number))


def of_text(text: str, stated: str) -> Any:
    """What a text becomes."""
    bare = text.strip(SPACE)
    match stated:
        case "varchar":
            return text
        case "boolean":
            word = text.strip(" ").lower()
            return True if word in TRUE else False if word in FALSE else REJECT
        case "integer" | "bigint" | "double":
            if re.fullmatch(r"[+-]?nan", bare, re.IGNORECASE):
                return None
            found = NUMBER.fullmatch(bare)
            if not found:
                return REJECT
            return whole_of_text(found, stated) if stated != "double" else double_of_text(bare, found)
        case _:
            return moment_of_text(bare, stated)


def whole_of_text(found: re.Match[str], stated: str) -> Any:
    sign, digits, fraction, _, exponent = found.groups()
    if digits is None or exponent is not None or (fraction or "").strip("0"):
        return REJECT
    number = int(sign + digits)
    low, high = RANGES[stated]
    return number if low <= number <= high else REJECT


def double_of_text(text: str, found: re.Match[str]) -> Any:
    number = float(text)
    if math.isinf(number):
        return REJECT
    exact = Fraction(Decimal(text)) if abs(int(found[5] or 0)) < 2000 else None
    if number == 0:
        digits = (found[2] or "") + (found[3] or "") + (found[4] or "")
        return REJECT if digits.strip("0") else number
    if abs(number) >= 2**53 and found[5] is None and Fraction(number) != exact:
        return REJECT
    if abs(number) >= 1e38 and found[5] is None:
        return REJECT
    return number


def moment_of_text(text: str, stated: str) -> Any:
    found = MOMENT.fullmatch(text)
    if not found:
        return REJECT
    year, month, other_month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(int(year), int(month or other_month), int(day))
    except ValueError:
        return REJECT
    hours, minutes, seconds = int(hour or 0), int(minute or 0), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        return REJECT
    moment += timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=int((fraction or "").ljust(6, "0")))
    offset = timedelta()
    if zone and zone[0] in "+-":
        ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]) if len(zone) > 3 else 0)
        if int(zone[1:3]) > 15 or (len(zone) > 3 and int(zone[-2:]) > 59):
            return REJECT
        offset = ahead if zone[0] == "+" else -ahead
    if stated == "timestamptz":
        try:
            return (moment - offset).replace(tzinfo=UTC)
        except OverflowError:
            return REJECT
    return REJECT if offset else of_moment(moment, stated)


def of_number(number: int | float | Decimal, stated: str, *, text: str | None = None) -> Any:
    """What a number of a typed source becomes; `text` is how it is written, where that is not Python's way."""
    if isinstance(number, float):
        if math.isnan(number):
            return None
        if math.isinf(number):
            return REJECT
    match stated:
        case "varchar":
            if isinstance(number, float) and number == int(number) and abs(number) < 9e18:
                return str(int(number))
            return text or str(number)
        case "boolean":
            return bool(number) if number in (0, 1) else REJECT
        case "integer" | "bigint":
            low, high = RANGES[stated]
            return int(number) if number == int(number) and low <= number <= high else REJECT
        case "double":
            nearest = float(number)
            fits = isinstance(number, float) or Fraction(nearest) == Fraction(number)
            return nearest if fits or (isinstance(number, Decimal) and abs(nearest) < 2**53) else REJECT
        case _:
            return REJECT


def of_boolean(value: bool, stated: str) -> Any:
    """What a boolean of a typed source becomes."""
    return {
        "varchar": str(value).lower(),
        "boolean": value,
        "integer": int(value),
        "bigint": int(value),
        "double": float(value),
    }.get(stated, REJECT)


def of_moment(moment: date | datetime, stated: str, *, nanoseconds: int = 0) -> Any:
    """What a date or time of a typed source becomes; `nanoseconds` are those beyond its microseconds."""
    full = moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day)
    instant = full.tzinfo is not None
    full = full.replace(tzinfo=None)
    match stated:
        case "varchar":
            if not isinstance(moment, datetime):
                return moment.isoformat()
            fraction = f"{full.microsecond:06d}{nanoseconds:03d}".rstrip("0")
            return (
                full.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")
                + (f".{fraction}" if fraction else "")
                + ("+00" if instant else "")
            )
        case "date":
            return full.date() if full.time() == time() and not nanoseconds else REJECT
        case "timestamp":
            return full if not nanoseconds else REJECT
        case "timestamptz":
            return full.replace(tzinfo=UTC) if not nanoseconds else REJECT
        case _:
            return REJECT


def of_bytes(value: bytes, stated: str) -> Any:
    """What the bytes of a text become."""
    try:
        return of_text(value.decode(), stated)
    except UnicodeDecodeError:
        return REJECT


def single(number: float) -> float:
    """The float32 that is nearest to `number`."""
    return struct.unpack("f", struct.pack("f", number))[0]
