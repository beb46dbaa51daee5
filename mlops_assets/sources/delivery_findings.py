"""The findings of a comparison of deliveries, and the accepted partitions that a delivery is compared with."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from mlops_assets.sources.delivery_profiles import WHOLE_TABLE, ColumnProfile

LEAST_ROWS = 20
"""A partition of fewer known values has no distribution to speak of."""

_NOTABLE, _SIMILAR = 0.1, 1.5
_SETTLED = 7
"""Partitions after which new values are counted: in the first ones most values are new."""


@dataclass(frozen=True)
class DeliveryFinding:
    """One difference of a partition from those before it. `is_gross` ones stop the delivery.

    `text` goes into messages, so it quotes no value of the delivery; `values` are evidence.
    """

    partition: date
    column: str | None
    kind: str
    is_gross: bool
    text: str
    values: tuple[str, ...] = ()

    @property
    def evidence(self) -> str:
        """The difference in words, with values that show it."""
        return f"{self}, such as {', '.join(self.values)}" if self.values else str(self)

    def __str__(self) -> str:
        """The difference in words."""
        partition = "" if self.partition == WHOLE_TABLE else str(self.partition)
        return f"{' of '.join(filter(None, [self.column, partition])) or 'table'}: {self.text}"


def row_count(columns: Mapping[str, ColumnProfile]) -> int:
    """Return the number of rows of the partition with the profiles `columns`."""
    return max((profile.rows for profile in columns.values()), default=0)


class AcceptedPartitions:
    """The last partitions that were accepted, with the values of each column: in how many of them, and in how many rows."""

    def __init__(self, most: int):
        self.partitions: deque[Mapping[str, ColumnProfile]] = deque()
        self.partitions_with: dict[str, Counter[str]] = defaultdict(Counter)
        self._new: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=most))
        self._most = most

    def add(self, columns: Mapping[str, ColumnProfile]) -> None:
        """Take a partition in, and leave the oldest out when there are too many."""
        self.partitions.append(columns)
        for name, profile in columns.items():
            if len(self.partitions) > _SETTLED and profile.known >= LEAST_ROWS:
                self._new[name].append(self._share_of_new(profile))
            self.partitions_with[name].update((profile.counts or {}).keys())
        if len(self.partitions) > self._most:
            for name, profile in self.partitions.popleft().items():
                occurrences = self.partitions_with[name]
                occurrences.subtract((profile.counts or {}).keys())
                for value in profile.counts or {}:
                    if not occurrences[value]:
                        del occurrences[value]

    def of(self, column: str) -> list[ColumnProfile]:
        """The profiles of `column`."""
        return [profiles[column] for profiles in self.partitions if column in profiles]

    def rows_of_weekday(self, partition: date) -> list[int]:
        """The rows of the partitions before that have the weekday of `partition`; none unless partitions are days."""
        first, last = (next(iter(self.partitions[place].values())).partition for place in (0, -1))
        if (last - first).days >= 2 * len(self.partitions):
            return []
        dated = [(next(iter(profiles.values())).partition, profiles) for profiles in self.partitions]
        return [row_count(profiles) for day, profiles in dated if day.weekday() == partition.weekday()]

    def brings_new(self, column: str, share: float) -> bool:
        """Whether about a `share` of new values is usual in one partition in ten: campaigns and lots come and go."""
        shares = sorted(self._new[column])
        usual = shares[int(0.9 * (len(shares) - 1))] if shares else 0.0
        return usual >= _NOTABLE and share <= _SIMILAR * usual

    def _share_of_new(self, profile: ColumnProfile) -> float:
        counts, occurrences = profile.counts or {}, self.partitions_with[profile.column]
        return sum(rows for value, rows in counts.items() if value not in occurrences) / profile.known
