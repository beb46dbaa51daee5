"""The partitions of a table with time, as fine as its rows fill them, and the spans of its training."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.features.generated.dbt_model import sql_word
from mlops_assets.lake.sql import literal, quote
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.moments import Moments
from mlops_assets.operations.new_solution.origin import free_name
from mlops_assets.operations.new_solution.table_facts import TYPED, TableFacts
from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence
from mlops_assets.schema.duration import add_duration
from mlops_assets.schema.source import DeliveryComparison
from mlops_assets.schema.time_partitions import Partitions, period_start
from mlops_assets.sources.deliveries import has_too_few_rows

_MOST_PARTITIONS = 1_500
_FEWEST_ROWS = 5
"""Rows that a partition has on average at least, where another cadence gives more."""


@dataclass(frozen=True)
class Calendar:
    """The partitions: `column` is a DATE column of the raw table, computed by `expression` where the table lacks it."""

    column: str
    expression: str | None
    start: date
    end: date
    cadence: Cadence
    time_zone: str
    has_gaps: bool
    window: str
    holdout: str


def infer_calendar(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, moments: Moments, answers: Answers
) -> tuple[Calendar, list[Decision]]:
    """The partitions of the table: as fine as its rows fill them."""
    zone = answers.time_zone or "UTC"
    facts = table.columns[moments.time]
    if facts.type == "date":
        column, expression, day = moments.time, None, quote(moments.time)
    else:
        column = free_name(f"{moments.time}_date", table.columns)
        moment = moments.expressions.get(moments.prediction_time, sql_word(moments.prediction_time))
        expression = f"CAST({moment if zone == 'UTC' else f'timezone({literal(zone)}, {moment})'} AS DATE)"
        day = expression
    connection.execute("SET TimeZone = 'UTC'")
    rows = connection.execute(f"SELECT {day} AS day, count(*) FROM {TYPED} GROUP BY 1 ORDER BY 1").fetchall()
    counts: dict[date, int] = dict(rows)
    spans = {cadence: _spans(counts, cadence) for cadence in CADENCE_LENGTHS}
    cadence, decision = _cadence(spans, counts, answers)
    start, end, filled, partitions = spans[cadence]
    if unfinished := _unfinished_partition(counts, cadence):
        # Its delivery would be stopped, and with it the first run.
        end, told = unfinished
        filled, partitions, decision = filled - 1, partitions - 1, replace(decision, reason=f"{decision.reason} {told}")
    window, holdout = _lengths(start, end, cadence)
    calendar = Calendar(column, expression, start, end, cadence, zone, filled < partitions, window, holdout)
    return calendar, [decision]


def declared_calendar(
    connection: duckdb.DuckDBPyConnection, partitions: Partitions, *, file: Path
) -> tuple[Calendar, list[Decision]]:
    """The partitions that the source in `file` declares; where they go on, the spans are those of the days that have rows."""
    [(least, last)] = connection.execute(
        f"SELECT min({quote(partitions.column)}), max({quote(partitions.column)}) FROM {TYPED}"
    ).fetchall()
    start = max(partitions.start, period_start(least, partitions.cadence))
    end = add_duration(period_start(last, partitions.cadence), CADENCE_LENGTHS[partitions.cadence].duration)
    window, holdout = _lengths(start, end, partitions.cadence)
    calendar = Calendar(
        column=partitions.column,
        expression=None,
        start=partitions.start,
        end=partitions.end or end,
        cadence=partitions.cadence,
        time_zone=partitions.time_zone,
        has_gaps=False,
        window=window,
        holdout=holdout,
    )
    return calendar, [Decision(field="cadence", value=partitions.cadence, reason=f"The partitions of the table in {file}.")]


def _spans(counts: dict[date, int], cadence: Cadence) -> tuple[date, date, int, int]:
    """The first day, the day after the last, the partitions with rows, and all partitions between."""
    begins = sorted({period_start(day, cadence) for day in counts})
    number, here = 0, begins[0]
    while here <= begins[-1]:
        number, here = number + 1, add_duration(here, CADENCE_LENGTHS[cadence].duration)
    return begins[0], here, len(begins), number


def _unfinished_partition(counts: dict[date, int], cadence: Cadence) -> tuple[date, str] | None:
    """The first day of the last partition and what is told of it, where it has so few rows that its delivery would be stopped.

    A file that was written in the middle of a day ends with such a partition.
    """
    rows: Counter[date] = Counter()
    for day, count in counts.items():
        rows[period_start(day, cadence)] += count
    rules, (*earlier, last) = DeliveryComparison(), sorted(rows)
    former = [rows[each] for each in earlier[-rules.partitions :]]
    if len(former) < rules.minimum_partitions or not has_too_few_rows(rows[last], former, rules):
        return None
    return last, (
        f"The last one, of {last}, has {rows[last]} rows and each of the {len(former)} before it at least {min(former)}: it seems not to be "
        "whole and is left out (`end` of the partitions)."
    )


def _cadence(
    spans: dict[Cadence, tuple[date, date, int, int]], counts: dict[date, int], answers: Answers
) -> tuple[Cadence, Decision]:
    if answers.cadence is not None:
        if answers.cadence not in CADENCE_LENGTHS:
            raise StackError(f"There is no cadence {answers.cadence!r}.", remedy=f"Choose one: {', '.join(CADENCE_LENGTHS)}")
        return answers.cadence, Decision(field="cadence", value=answers.cadence, reason="Given.")  # type: ignore[return-value]
    rows = sum(counts.values())
    for cadence, (_, _, filled, partitions) in spans.items():
        if partitions >= 3 and filled == partitions <= _MOST_PARTITIONS and rows >= _FEWEST_ROWS * partitions:
            reason = f"Every one of {partitions} partitions has rows, {rows / partitions:.0f} on average."
            return cadence, Decision(field="cadence", value=cadence, reason=reason)
    possible = [cadence for cadence, (_, _, _, partitions) in spans.items() if 3 <= partitions <= _MOST_PARTITIONS]
    if not possible:
        days = len(counts)
        raise StackError(
            f"The times of the rows cover {days} {'day' if days == 1 else 'days'}, too few to train on some and predict others.",
            remedy="Take the table as one without time: --time none",
        )
    best = max(possible, key=lambda cadence: (spans[cadence][2] / spans[cadence][3], spans[cadence][3]))
    _, _, filled, partitions = spans[best]
    reason = f"{filled} of {partitions} partitions have rows, {rows / partitions:.1f} on average."
    question = "How long is a partition?"
    return best, Decision(field="cadence", value=best, reason=reason, question=question, choices=tuple(possible))


def _lengths(start: date, end: date, cadence: Cadence) -> tuple[str, str]:
    """Window and hold-out of the training: an eighth of the time is held out, as much is predicted, the rest before it is the window."""
    partitions = 0
    here = start
    while here < end:
        partitions, here = partitions + 1, add_duration(here, CADENCE_LENGTHS[cadence].duration)
    unit = CADENCE_LENGTHS[cadence].duration[-1]
    held_out = max(1, partitions // 8)
    # A window of monitoring is a week.
    if cadence == "daily" and partitions >= 28:
        held_out = max(7, held_out - held_out % 7)
    return f"{max(held_out + 1, partitions - held_out)}{unit}", f"{held_out}{unit}"
