"""Missing and infinite values in SQL: the one definition for everything that reads a table after the raw ones.

*Missing* is null or NaN. *Infinite* is a number beyond those that a model reads, which are float32: plus and minus infinity, and larger
magnitudes than 3.4e38. It is a value, which no range contains. Each function takes a quoted name or another SQL expression.
"""

from typing import Final

LARGEST_FLOAT32: Final = 3.4028234663852886e38


def numeric_value(value: str) -> str:
    """SQL for a numeric or boolean `value` as a double; null when it is missing."""
    return f"nullif(TRY_CAST({value} AS DOUBLE), 'nan'::DOUBLE)"


def finite_value(value: str) -> str:
    """SQL for `number`, which is null also when it is infinite: what sums, deviations and quantiles are taken of."""
    return f"CASE WHEN abs({numeric_value(value)}) <= {LARGEST_FLOAT32!r} THEN {numeric_value(value)} END"


def is_infinite(value: str) -> str:
    """SQL that is true for a number that is infinite, false for any other value."""
    return f"coalesce(abs({numeric_value(value)}) > {LARGEST_FLOAT32!r}, false)"


def is_present(value: str, *, numeric: bool) -> str:
    """SQL that is false for a missing `value`."""
    return f"({numeric_value(value) if numeric else value} IS NOT NULL)"
