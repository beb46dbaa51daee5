"""The performance of a window in words, the same on the page, in the check and its notification, and in the retraining decision."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from mlops_assets.schema.metric_names import Aspect, greater_is_better, metric_aspect, metric_bounds

UNCERTAIN = "too uncertain to tell"

Row = Mapping[str, Any]
"""A row of the performance report, by column."""


def evaluated_value(row: Row) -> tuple[float | None, str]:
    """The value of a row that is compared, and whether it is realised or estimated."""
    is_realised = row["complete"] and row["realised"] is not None
    return (row["realised"], "realised") if is_realised else (row["estimated"], "estimated")


def describe_performance(rows: Sequence[Row], metric: str) -> str:
    """The rows of one window and version on all its rows in words: what is worse by aspect, and how well it ranks.

    Of an aspect one metric is named, `metric` if it is among them. Empty without a value.
    """
    by_aspect: dict[Aspect, list[Row]] = {aspect: [] for aspect in get_args(Aspect)}
    for row in sorted(rows, key=lambda row: row["metric"] != metric):
        if evaluated_value(row)[0] is not None:
            by_aspect[metric_aspect(row["metric"])].append(row)
    worse = [_example(f"{aspect} worse", alerts) for aspect, part in by_aspect.items() if (alerts := _alerts(part))]
    usual = [_example(f"{aspect} {_state(part[0])}", part) for aspect, part in by_aspect.items() if part and not _alerts(part)]
    return f"{', '.join(worse)}; {', '.join(usual)}" if worse and usual else ", ".join(worse or usual)


def _state(row: Row) -> str:
    """The state of a metric without an alert: where no value at all could be worse than its limit, as of few rows, nothing is known."""
    least, greatest = metric_bounds(row["metric"])
    limit, rises = row["threshold"], greater_is_better(row["metric"])
    worst = least if rises else greatest
    if limit is None or worst is None:
        return "as usual"
    return UNCERTAIN if (limit <= worst if rises else limit >= worst) else "as usual"


def _alerts(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["alert"]]


def _example(text: str, rows: Sequence[Row]) -> str:
    value, kind = evaluated_value(rows[0])
    held_out = "" if rows[0]["reference"] is None else f", hold-out {_number(rows[0]['reference'])}"
    return f"{text} ({kind} {rows[0]['metric']} {_number(value or 0.0)}{held_out}{describe_limits(rows[0], _number)})"


def describe_limits(row: Row, form: Callable[[float], str]) -> str:
    """The limits that a row with an alert was held against, in words; `form` writes a number. A row of an earlier release has fewer."""
    if not row["alert"] or row["threshold"] is None:
        return ""
    best = "" if row.get("best") is None else f", best version {form(row['best'])}"
    floor = "" if row.get("floor") is None else f", floor of the gates {form(row['floor'])}"
    return f"{best}{floor}, limit {form(row['threshold'])}"


def _number(value: float) -> str:
    return f"{value:.3g}"
