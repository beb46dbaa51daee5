"""Partitions of the running Dagster as spans of days: which of an asset's partitions lie in some days, and where its data end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from dateutil.relativedelta import relativedelta

from mlops_assets.clients.dagster_client import DagsterClient


@dataclass(frozen=True)
class PartitionWindow:
    """One partition: its key, its first day and the day after its last."""

    key: str
    first: date
    end: date

    @property
    def last(self) -> date:
        """Its last day."""
        return self.end - timedelta(days=1)


def partition_windows(keys: Sequence[str]) -> list[PartitionWindow]:
    """The partitions of `keys`, which are first days in order.

    The keys do not tell where the last one ends: it is as long as the one before it, and one that stands alone has a day.
    """
    starts = [date.fromisoformat(key) for key in keys]
    ends = [*starts[1:], *([_following(starts)] if starts else [])]
    return [PartitionWindow(start.isoformat(), start, end) for start, end in zip(starts, ends, strict=True)]


def _following(starts: Sequence[date]) -> date:
    if len(starts) < 2:
        return starts[-1] + timedelta(days=1)
    previous, start = starts[-2:]
    # Months and years have no fixed number of days: they begin on the same day.
    return start + (relativedelta(start, previous) if start.day == previous.day else start - previous)


@dataclass(frozen=True)
class PartitionCalendar:
    """The partitions of the assets of one running Dagster, each asked for once."""

    client: DagsterClient
    _windows: dict[str, list[PartitionWindow]] = field(default_factory=dict)

    def windows(self, key: str) -> list[PartitionWindow]:
        """All partitions of an asset, in order."""
        if key not in self._windows:
            self._windows[key] = partition_windows(self.client.partition_keys(key))
        return self._windows[key]

    def last(self, keys: Sequence[str]) -> date | None:
        """The last day of the asset among `keys` whose partitions end first; None where none has any."""
        return min((window.last for key in keys for window in self.windows(key)[-1:]), default=None)
