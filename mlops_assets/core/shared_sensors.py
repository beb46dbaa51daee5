"""What the sensors that watch all solutions have in common: a look at each of them, the events of all runs, one answer for the tick."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import dagster as dg

_Watched = TypeVar("_Watched")
_MOST_NAMES = 5
_EVENTS_AT_ONCE = 1000
_LOGGER = logging.getLogger(__name__)


def look_at_each(
    watched: Mapping[str, _Watched], look: Callable[[str, _Watched], dg.RunRequest | str]
) -> tuple[list[dg.RunRequest], str]:
    """The runs that `look` asks for, and in one sentence why it asks for none of the others.

    An error at one of them does not keep the others from their runs: it is logged, and raised by a tick in which there is nothing else to do.
    """
    requests: list[dg.RunRequest] = []
    reasons: dict[str, list[str]] = {}
    errors: list[Exception] = []
    for name, target in watched.items():
        try:
            outcome = look(name, target)
        except Exception as error:
            error.add_note(f"While the sensor looked at {name}.")
            _LOGGER.exception("The sensor could not look at %s.", name)
            errors.append(error)
            continue
        if isinstance(outcome, str):
            reasons.setdefault(outcome, []).append(name)
        else:
            requests.append(outcome)
    if errors and not requests:
        raise errors[0]
    return requests, "; ".join(f"{_listed(names)}: {reason}" for reason, names in reasons.items())


def tick_result(requests: list[dg.RunRequest], reason: str, cursor: Mapping[str, Any] | None) -> dg.SensorResult:
    """The result of a tick: runs, or the reason for none. `cursor` is kept for the next tick; None leaves the one that is there."""
    kept = None if cursor is None else json.dumps(cursor)
    return dg.SensorResult(run_requests=requests, cursor=kept) if requests else dg.SensorResult(skip_reason=reason, cursor=kept)


def read_cursor(context: dg.SensorEvaluationContext) -> dict[str, Any]:
    """What the last tick kept; nothing at the first."""
    return json.loads(context.cursor) if context.cursor else {}


def _listed(names: list[str]) -> str:
    others = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {others} others" if others > 0 else "")


def events_between(
    instance: dg.DagsterInstance, kind: dg.DagsterEventType, *, after: int, last: int
) -> Iterator[dg.EventLogRecord]:
    """The events of a kind behind the position `after` up to `last`, oldest first, of all runs: one query of an index for a thousand."""
    while events := instance.event_log_storage.get_logs_for_all_runs_by_log_id(after, kind, _EVENTS_AT_ONCE):
        for after, entry in events.items():
            if after > last:
                return
            yield dg.EventLogRecord(storage_id=after, event_log_entry=entry)
