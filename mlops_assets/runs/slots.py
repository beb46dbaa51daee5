"""Slots: limits on the runs executed at once, by the kind of their work. Runs that others wait for have slots of their own.

A run has the slots that all of its steps name in their tag; with steps of several kinds, or of none, it is `work`.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SLOTS_TAG = "mlops/slots"
"""On the steps of assets: the slots that they need. On every queued run: those that it has."""

WORK = "work"
DBT = "dbt"
PREDICTION_LOG = "prediction_log"
VERSION_CHECK = "version_check"
CHAMPION = "champion"
MAINTENANCE = "maintenance"


@dataclass(frozen=True)
class Slots:
    """The slots of one kind of run: their number, the order of the runs that wait, and the time after which one has hung.

    `niceness` is how much nicer its processes are than others (`nice(2)`): by 5, a third of the time of one beside it on a busy machine.
    """

    count: int
    priority: int
    longest_seconds: int | None
    niceness: int

    def tags(self, name: str) -> dict[str, str]:
        """The tags of a run that has these slots. Dagster orders and ends runs by the latter two."""
        return {
            SLOTS_TAG: name,
            "dagster/priority": str(self.priority),
            **({"dagster/max_runtime": str(self.longest_seconds)} if self.longest_seconds else {}),
        }


def slots() -> dict[str, Slots]:
    """The slots of this machine, by name.

    `work` has as many as there are processors, from 2 to 8. The others are short and mostly wait, so that they come on top:
    dbt is a pool of one (a second dbt run that waited among `work` would keep others from starting); two logs, so that one solution's
    backlog does not hold up another's; one check of versions, of some seconds; two switches of a champion, so that a rollback does not
    wait for another solution's; one maintenance, which may wait for a backup. What takes long is nicer than what others wait for, which are
    the servers too.
    """
    return {
        WORK: Slots(count=max(2, min(8, os.cpu_count() or 2)), priority=0, longest_seconds=None, niceness=5),
        DBT: Slots(count=1, priority=0, longest_seconds=None, niceness=5),
        PREDICTION_LOG: Slots(count=2, priority=5, longest_seconds=3600, niceness=0),
        VERSION_CHECK: Slots(count=1, priority=5, longest_seconds=600, niceness=0),
        CHAMPION: Slots(count=2, priority=10, longest_seconds=1800, niceness=0),
        MAINTENANCE: Slots(count=1, priority=-5, longest_seconds=None, niceness=5),
    }


def slots_of(step_tags: Iterable[Mapping[str, str]]) -> str:
    """The name of the slots of a run whose steps have these tags."""
    named = {tags.get(SLOTS_TAG, WORK) for tags in step_tags}
    return named.pop() if len(named) == 1 else WORK
