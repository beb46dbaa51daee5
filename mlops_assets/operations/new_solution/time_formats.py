"""Columns of dates and times, and the format in which they are written."""

from collections.abc import Collection
from dataclasses import dataclass

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.fitting import StagedColumns
from mlops_assets.operations.new_solution.staged_rows import STAGED
from mlops_assets.sources.column_types import TextFormats

_DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y"),
    *("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
_CLOCKS = (
    " %H:%M:%S",
    " %H:%M",
    "T%H:%M:%S",
    " %H:%M:%S.%f",
    " %I:%M:%S %p",
    " %I:%M %p",
    ", %H:%M",
    " %H:%M:%S %z",
    " %H:%M %z",
)
FORMATS = (*_DAYS, *(day + clock for day in _DAYS for clock in _CLOCKS), "%Y-%m-%d", *(f"%Y-%m-%d{clock}" for clock in _CLOCKS))
"""All formats of dates and times that are known."""

_OFFSET = "regexp_matches({value}, '[0-9:](Z| UTC|\\s?[+-][0-9]{2}(:?[0-9]{2})?)\\s*$')"


@dataclass(frozen=True)
class TimeColumn:
    """A column of dates or times. `written` is its format, None for ISO 8601; `has_offset`: its texts say their zone."""

    stated: str
    reason: str
    written: str | None
    has_offset: bool


def find_time_columns(
    columns: StagedColumns, names: Collection[str], answers: Answers, nulls: Collection[str], *, prefers_comma: bool
) -> tuple[dict[str, TimeColumn], list[Decision]]:
    """The columns of `names` that hold dates or times, and the decision on the order of day and month where both fit."""
    filled = columns.counts(names, "{value} IS NOT NULL", nulls=nulls)
    digits = columns.counts(names, "regexp_matches({value}, '[0-9]')", nulls=nulls)
    rest = [name for name in names if filled[name] and digits[name] == filled[name]]
    clocks = columns.counts(rest, "contains({value}, ':')", nulls=nulls)
    found: dict[str, TimeColumn] = {}
    plain = TextFormats()
    days = [name for name in rest if not clocks[name]]
    for name in columns.fitting(days, "date", plain, nulls=nulls):
        found[name] = TimeColumn("date", "Dates such as 2024-01-31.", None, has_offset=False)
    moments = columns.fitting([name for name in rest if clocks[name]], "timestamptz", plain, nulls=nulls)
    offsets = columns.counts(moments, _OFFSET, nulls=nulls)
    for name in moments:
        reason = "Times with an offset from UTC." if offsets[name] else "Times without an offset."
        found[name] = TimeColumn("timestamptz", reason, None, has_offset=offsets[name] > 0)
    decisions: list[Decision] = []
    own = [answers.date_format] if answers.date_format and "%" in answers.date_format else []
    for name in rest:
        if name in found:
            continue
        has_clock = clocks[name] > 0
        candidates = [day + clock for day in _DAYS for clock in _CLOCKS] if has_clock else list(_DAYS)
        stated = "timestamptz" if has_clock else "date"
        formats = [
            written for written in (*own, *candidates) if columns.fitting([name], stated, _as(written, has_clock), nulls=nulls)
        ]
        if not formats:
            continue
        written, decision = _choose(columns, name, formats, answers, prefers_comma=prefers_comma)
        if decision is not None and not any(decision.field == other.field for other in decisions):
            decisions.append(decision)
        reason = f"{'Times' if has_clock else 'Dates'} written as {written}."
        found[name] = TimeColumn(stated, reason, written, has_offset="%z" in written)
    return found, decisions


def check_date_format(connection: duckdb.DuckDBPyConnection, written: str | None) -> None:
    """Raise StackError unless `written` is an order of day and month, or a format."""
    if written is None or written in ("day-first", "month-first"):
        return
    try:
        connection.execute("SELECT strftime(TIMESTAMP '2024-01-31', ?)", [written])
        is_format = "%" in written
    except duckdb.Error:
        is_format = False
    if not is_format:
        remedy = "Give day-first, month-first or a format such as --date-format '%d.%m.%Y'"
        raise StackError(f"{written!r} is no format of dates.", remedy=remedy)


def _as(written: str, has_clock: bool) -> TextFormats:
    return TextFormats(timestamp=written) if has_clock else TextFormats(date=written)


def _choose(
    columns: StagedColumns, name: str, formats: list[str], answers: Answers, *, prefers_comma: bool
) -> tuple[str, Decision | None]:
    """The format of a column among those that read all of it, and the decision where day and month can be either."""
    if formats[0] == answers.date_format:
        return formats[0], Decision(field="date_format", value=formats[0], reason="Given.")
    by_order = {order: written for written in reversed(formats) if (order := _order(written))}
    if len(by_order) < 2:
        return formats[0], None
    if answers.date_format is not None:
        chosen = by_order.get(answers.date_format, answers.date_format)
        return chosen, Decision(field="date_format", value=answers.date_format, reason="Given.")
    sorted_share = {order: _sorted_share(columns, name, written) for order, written in by_order.items()}
    best = max(sorted_share, key=lambda order: (sorted_share[order], order == "day-first"))
    reason = f"In {name} no day is above 12; the rows are in the order of the dates more often so."
    if prefers_comma or len(set(sorted_share.values())) == 1:
        best, reason = "day-first", f"In {name} no day is above 12; day before month is the order of most countries."
    decision = Decision(
        field="date_format",
        value=best,
        reason=reason,
        question="Is the day or the month first in the dates?",
        choices=("day-first", "month-first"),
    )
    return by_order[best], decision


def _order(written: str) -> str | None:
    positions = [written.find("%d"), written.find("%m")]
    if min(positions) < 0 or written.startswith("%Y"):
        return None
    return "day-first" if positions[0] < positions[1] else "month-first"


def _sorted_share(columns: StagedColumns, name: str, written: str) -> float:
    """The share of the rows whose time is not before that of the row above, with this format."""
    moment = f"try_strptime({columns.staged.sql(name)}, '{written}')"
    query = f"SELECT avg(CAST(moment >= before AS INTEGER)) FROM (SELECT {moment} AS moment, lag({moment}) OVER () AS before FROM {STAGED})"
    [(share,)] = columns.connection.execute(query).fetchall()
    return float(share or 0.0)
