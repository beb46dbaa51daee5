"""Columns of texts that are meant to be numbers or times, and what keeps them from it."""

from collections.abc import Collection

from mlops_assets.features.generated.dbt_model import sql_word
from mlops_assets.lake.sql import literal
from mlops_assets.operations.new_solution.fitting import StagedColumns
from mlops_assets.operations.new_solution.staged_rows import STAGED
from mlops_assets.operations.new_solution.time_formats import FORMATS

_MOST = 0.8
"""With such a share of numbers or times a column of texts is probably meant to be one of them."""

_NUMBER = r"[+-]?\d[\d.,' ]*"
_UNIT = r"(?:%|€|\$|£|¥|CHF|EUR|USD|GBP|[kmcµ]?[mgls]|[kMG]?Wh?|°C|°F|[KMGT]?B|km/h|mph|h|min)"
_WITH_UNIT = rf"^\s*({_UNIT}\s*{_NUMBER}|{_NUMBER}\s*{_UNIT})\s*$"
_IS_TIME = " OR ".join(
    # A list in which some formats have an offset takes 31 April for 1 May.
    f"try_strptime({{value}}, [{', '.join(literal(text) for text in FORMATS if ('%z' in text) is has_offset)}]) IS NOT NULL"
    for has_offset in (False, True)
)


def nearly_typed(columns: StagedColumns, names: Collection[str], nulls: Collection[str]) -> dict[str, str]:
    """The columns of `names`, all of them texts, of which most values are numbers or times, each with the rest and the remedy."""
    filled = columns.counts(names, "{value} IS NOT NULL", nulls=nulls)
    asked = [name for name in names if filled[name]]
    numbers = columns.counts(asked, "TRY_CAST(replace({value}, ',', '.') AS DOUBLE) IS NOT NULL", nulls=nulls)
    with_unit = columns.counts(asked, f"regexp_matches({{value}}, {literal(_WITH_UNIT)})", nulls=nulls)
    maybe_times = [name for name in asked if not numbers[name] and not with_unit[name]]
    times = columns.counts(maybe_times, _IS_TIME, nulls=nulls)
    found: dict[str, str] = {}
    for name in asked:
        if _MOST * filled[name] <= numbers[name] < filled[name]:
            rest = filled[name] - numbers[name]
            found[name] = f"{rest:,} of {filled[name]:,} values are no numbers. If they mean a missing value, give --null TEXT."
        elif _MOST * filled[name] <= times.get(name, 0) < filled[name]:
            found[name] = (
                f"{filled[name] - times[name]:,} of {filled[name]:,} values are no times, such as 24:00 or 31 April, so that all are read as "
                "text. Correct them in the file; if they mean a missing value, give --null TEXT."
            )
        elif with_unit[name] == filled[name] and (number := _number(columns, name, nulls)):
            found[name] = (
                "Every value is a number with its unit, and is read as text. To have the number, add a column to the source: "
                f'{{type: double, expression: "CAST({number} AS DOUBLE)"}}'
            )
    return found


def _number(columns: StagedColumns, name: str, nulls: Collection[str]) -> str | None:
    """SQL for the number in the texts of a column; None where they have several units, or two signs that may be the decimal mark."""
    value = columns.raw(name, nulls)
    unit = f"trim(regexp_replace({value}, {literal(_NUMBER)}, ''))"
    signs = ", ".join(f"bool_or(contains({value}, '{sign}'))" for sign in ",.")
    [(units, first, comma, point)] = columns.connection.execute(
        f"SELECT count(DISTINCT {unit}), min({unit}), {signs} FROM {STAGED} WHERE {value} IS NOT NULL"
    ).fetchall()
    if units != 1 or (comma and point):
        return None
    number = f"replace({sql_word(name)}, {literal(first)}, '')"
    return f"replace({number}, ',', '.')" if comma else number
