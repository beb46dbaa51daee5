"""The moment of prediction, and the moment at which the label became known."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.features.generated.dbt_model import sql_word
from mlops_assets.lake.sql import literal, quote
from mlops_assets.operations.new_solution.answers import NONE, Answers, Decision
from mlops_assets.operations.new_solution.origin import free_name
from mlops_assets.operations.new_solution.table_facts import TYPED, ColumnFacts, TableFacts

_TIME_NAME = re.compile(
    r"(^|_|\b)(time|timestamp|ts|date|datum|zeit|zeitpunkt|created|sent|ordered|started|at|on|when|day|tag)($|_|\b)", re.I
)


@dataclass(frozen=True)
class Moments:
    """The columns of a table's time: `time` and `known_at` as they are in the table, the `expressions` that turn a date, a number or
    a delay into a moment, and the columns of the spine that result.
    """

    time: str
    prediction_time: str
    known_at: str | None
    label_time: str
    expressions: dict[str, str]


def infer_time(
    table: TableFacts, label: str, helpers: Collection[str], reasons: Mapping[str, str], answers: Answers
) -> tuple[str | None, list[Decision]]:
    """The column with the moment of prediction; None where the table has no time.

    `helpers` are columns that others are computed from, `reasons` tell why a column has its type.
    """
    if answers.time == NONE:
        return None, [Decision(field="time", value=NONE, reason="Given.")]
    if answers.time is not None:
        facts = table.columns[answers.time]
        if not (facts.is_time or is_epoch(facts)):
            problem = f"{answers.time} holds {facts.type} values, no times. {reasons.get(answers.time, '')}".strip()
            raise StackError(problem, remedy="Name another column: --time, or --time none")
        if facts.filled < table.rows:
            missing = table.rows - facts.filled
            raise StackError(
                f"{answers.time} is missing in {missing:,} of {table.rows:,} rows.",
                remedy="Every prediction has a moment: --time",
            )
        return answers.time, [Decision(field="time", value=answers.time, reason="Given.")]
    candidates = [
        name
        for name, facts in table.columns.items()
        if facts.is_time and facts.filled == table.rows and facts.distinct > 2 and name not in (label, answers.known_at, *helpers)
    ]
    if not candidates:
        return None, [Decision(field="time", value=NONE, reason="No column has a time in every row.")]
    best = max(
        candidates, key=lambda name: (bool(_TIME_NAME.search(name)), table.columns[name].type != "date", -candidates.index(name))
    )
    others = [name for name, facts in table.columns.items() if facts.is_time and name not in (best, *helpers)]
    reason = "It has a time in every row." + (f" Other columns with times: {', '.join(others[:3])}." if others else "")
    decision = Decision(
        field="time",
        value=best,
        reason=reason,
        question="Which column is the moment of the prediction? (none: the table has no time)",
        choices=(*candidates, NONE),
    )
    return best, [decision]


def is_epoch(facts: ColumnFacts) -> bool:
    """Whether whole numbers can be seconds or milliseconds since 1970: from 1990 to 2100."""
    return _epoch_unit(facts) is not None


def _epoch_unit(facts: ColumnFacts) -> int | None:
    if facts.type not in ("integer", "bigint", "double") or facts.least is None or facts.greatest is None:
        return None
    for unit in (1, 1_000, 1_000_000):
        if 631_152_000 * unit <= float(facts.least) and float(facts.greatest) <= 4_102_444_800 * unit:
            return unit
    return None


def infer_moments(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, time: str, label: str, answers: Answers
) -> tuple[Moments, list[Decision]]:
    """The moments of prediction and label, as columns of the spine. `label` is the column of the table with the label."""
    zone = answers.time_zone or "UTC"
    expressions: dict[str, str] = {}
    prediction_time = _moment(table, time, zone, expressions, is_end=False)
    known_at, decision = _known_at(connection, table, time, label, answers)
    if known_at is not None:
        label_time = _moment(table, known_at, zone, expressions, is_end=True)
        return Moments(time, prediction_time, known_at, label_time, expressions), [decision]
    delay = _interval(decision.value)
    label_time = free_name("label_known_at", table.columns)
    moment = expressions.get(prediction_time, sql_word(prediction_time))
    expressions[label_time] = f"CASE WHEN {sql_word(label)} IS NOT NULL THEN {moment} + {delay} END"
    return Moments(time, prediction_time, None, label_time, expressions), [decision]


def _moment(table: TableFacts, column: str, zone: str, expressions: dict[str, str], *, is_end: bool) -> str:
    """The column of the spine with the moment in `column`: itself, or an expression that is added. A date is known when it is over."""
    facts, value = table.columns[column], sql_word(column)
    if facts.type == "timestamptz":
        return column
    name = free_name(f"{column}_moment", table.columns)
    if unit := _epoch_unit(facts):
        number = value if facts.type == "double" else f"CAST({value} AS BIGINT)"
        expressions[name] = f"make_timestamptz(CAST({1_000_000 // unit} * {number} AS BIGINT))"
    else:
        local = f"CAST({value} AS TIMESTAMP)"
        expressions[name] = f"timezone({literal(zone)}, {local}{' + INTERVAL 1 DAY' if is_end else ''})"
    return name


def _known_at(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, time: str, label: str, answers: Answers
) -> tuple[str | None, Decision]:
    if answers.known_at not in (None, NONE):
        facts = table.columns[answers.known_at]  # type: ignore[index]
        if not (facts.is_time or is_epoch(facts)):
            raise StackError(f"{answers.known_at} holds {facts.type} values, no times.", remedy="Name another column: --known-at")
        return answers.known_at, Decision(field="known_at", value=str(answers.known_at), reason="Given.")
    if answers.label_delay is not None:
        return None, Decision(field="label_delay", value=answers.label_delay, reason="Given.")
    later = [
        name
        for name, facts in table.columns.items()
        if answers.known_at is None and facts.is_time and name != time and _is_later(connection, table, name, time, label)
    ]
    if later:
        decision = Decision(
            field="known_at",
            value=later[0],
            reason=f"It is later than {time} in every row, and there wherever the label is.",
            question="Which column is the moment at which the label became known?",
            choices=(*later, NONE),
        )
        return later[0], decision
    return None, Decision(
        field="label_delay",
        value="1d",
        reason="No column has a time after the prediction.",
        question="How long after the prediction is the label known? (such as 1d, 2w, 3m)",
    )


def _is_later(connection: duckdb.DuckDBPyConnection, table: TableFacts, name: str, time: str, label: str) -> bool:
    end = " + INTERVAL 1 DAY" if table.columns[name].type == "date" else ""
    moment, known = f"CAST({quote(time)} AS TIMESTAMPTZ)", f"CAST({quote(name)} AS TIMESTAMPTZ){end}"
    if not table.columns[time].is_time:
        return False
    [(labelled, later)] = connection.execute(
        f"SELECT count(*), count(*) FILTER ({known} > {moment}) FROM {TYPED} WHERE {quote(label)} IS NOT NULL"
    ).fetchall()
    return bool(labelled) and later == labelled


def _interval(duration: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[hdwmy]", duration):
        raise StackError(f"{duration!r} is no duration.", remedy="A number and h, d, w, m or y: --label-delay 1d")
    unit = {"h": "HOUR", "d": "DAY", "w": "WEEK", "m": "MONTH", "y": "YEAR"}[duration[-1]]
    return f"INTERVAL {duration[:-1]} {unit}"


def check_zone(name: str | None) -> None:
    """Raise StackError unless `name` is a time zone."""
    try:
        ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError) as error:
        raise StackError(
            f"{name!r} is no time zone.", remedy="Give a name of the tz database: --time-zone Europe/Berlin"
        ) from error
