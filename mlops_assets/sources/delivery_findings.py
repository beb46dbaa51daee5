"""The vocabulary of the comparison of deliveries: a finding, and the partitions that a delivery is compared with."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from mlops_assets.sources.delivery_profiles import WHOLE_TABLE, ColumnProfile

LEAST_ROWS = 20
"""A partition of fewer known values has no distribution to speak of."""


@dataclass(frozen=True)
class Finding:
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


class Reference:
    """The last partitions that were accepted, with the values of each column: in how many of them, and in how many rows."""

    def __init__(self, most: int):
        self.partitions: deque[Mapping[str, ColumnProfile]] = deque()
        self.partitions_with: dict[str, Counter[str]] = defaultdict(Counter)
        self._most = most

    def add(self, columns: Mapping[str, ColumnProfile]) -> None:
        """Take a partition in, and leave the oldest out when there are too many."""
        self.partitions.append(columns)
        for name, profile in columns.items():
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
        return [each[column] for each in self.partitions if column in each]
