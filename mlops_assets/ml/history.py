"""Histories: the rows that a model is fitted on, and how much each counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class History:
    """Rows that a model is fitted on: those of the last `days` (None: all), weighted by half every `half_life` days (None: equally).

    Up to `earlier` more from before these days are drawn evenly over their time.
    """

    days: int | None = None
    half_life: int | None = None
    earlier: int = 0

    @property
    def name(self) -> str:
        """The history in words."""
        limit = "" if self.days is None else f"last {self.days} days"
        if self.earlier:
            limit += f" and up to {self.earlier:,} earlier rows"
        if self.half_life is not None:
            return f"half-life of {self.half_life} days" + (limit and f" in the {limit}")
        return limit or "all"
