"""Histories: the rows that a model is fitted on, and how much each counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class History:
    """Rows that a model is fitted on: those of the last `days` (None: all), weighted by half every `half_life` days (None: equally)."""

    days: int | None = None
    half_life: int | None = None

    @property
    def name(self) -> str:
        """The history in words."""
        if self.half_life is not None:
            limit = "" if self.days is None else f" in the last {self.days} days"
            return f"half-life of {self.half_life} days{limit}"
        return "all" if self.days is None else f"last {self.days} days"
