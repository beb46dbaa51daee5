"""The YAML schema of feature views that are declared instead of written: functions over the last days of an entity. Validation only."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlops_assets.schema.column_names import LOADED_AT, fold
from mlops_assets.schema.duration import Duration, maximum_days
from mlops_assets.schema.yaml_model import Name, YamlModel

EVENT_TIMESTAMP, EVENT_DATE = "event_timestamp", "event_date"
"""Columns of every declared view: from when its values are known, and the partition."""

FUNCTIONS = ("count", "sum", "mean", "rate", "last", "time_since")
_MARGIN_DAYS = {"day": 2, "hour": 1}
"""More days than lie between two moments, also where a day has 25 hours."""


class RollingFeature(YamlModel):
    """One function over the rows of an entity that happened in the last days and are known: one of `count` to `time_since`.

    Expressions are SQL over the columns of the table. Rows in which the expression is null do not count.
    """

    count: str | None = None
    """How many rows fulfil a condition; `"*"` counts all. 0 without any."""
    sum: str | None = None
    """Sum of an expression. 0 without any."""
    mean: str | None = None
    """Mean of an expression; null without any."""
    rate: str | None = None
    """Share of the rows that fulfil a condition; null without any."""
    last: str | None = None
    """Value of an expression in the newest row that has one; null without any."""
    time_since: Literal["hours", "days"] | None = None
    """Hours or days since the newest row; null without any."""
    over: Duration
    """How far back from `event_timestamp` rows count, in days or weeks: `7d`, `4w`."""
    description: str = ""
    """What the feature holds; left out, the function in words."""

    @property
    def function(self) -> str:
        """The one of `FUNCTIONS` that is given."""
        return next(name for name in FUNCTIONS if getattr(self, name) is not None)

    @property
    def argument(self) -> str:
        """What the function is given: an expression, or a unit of time."""
        return str(getattr(self, self.function))

    @property
    def days(self) -> int:
        """How many days back rows count."""
        return maximum_days(self.over)

    @model_validator(mode="after")
    def _has_one_function(self) -> "RollingFeature":
        if sum(getattr(self, name) is not None for name in FUNCTIONS) != 1:
            raise ValueError(f"give exactly one of {', '.join(FUNCTIONS)}")
        if self.over[-1] not in "dw":
            raise ValueError("`over` is in days or weeks, such as 28d: months and years have no fixed length")
        return self


class FeatureViewSection(YamlModel):
    """A feature view over a raw table: what happened to an entity in the last days, as it was known at each `event_timestamp`.

    A row at the moment T counts the rows of the table with `known_at` <= T and `time` in (T - `over`, T].
    """

    description: str
    """What the view holds."""
    table: str = ""
    """The raw table of the source, which has partitions; left out, its only table."""
    entity: Annotated[list[str], Field(min_length=1)]
    """Columns that identify the thing described. The spine must have columns of these names."""
    time: str
    """The column with the moment at which a row happened."""
    known_at: str | None = None
    """The column with the moment from which a row is known, null until then; left out, `time`."""
    late: Duration | None = None
    """How long after the date of its partition a row may happen, in days or weeks. Checked by `happens_within`; left out, not at all."""
    every: Literal["day", "hour"] = "day"
    """At which moments there is a row: at the start of each day of the table's time zone, or of each hour."""
    freshness: Duration | None = None
    """Values older than this at prediction time count as missing; left out, two days more than the longest `over`."""
    online: bool = True
    """Whether the view belongs into the online store."""
    features: Annotated[dict[Name, RollingFeature], Field(min_length=1)]
    """The features by name."""

    @property
    def longest(self) -> int:
        """The days of the longest window."""
        return max(feature.days for feature in self.features.values())

    @property
    def reach(self) -> int:
        """For how many days after it happened a row is read: past the longest window, so that the last row of an entity holds nothing."""
        return self.longest + _MARGIN_DAYS[self.every]

    @property
    def late_days(self) -> int:
        """The days of `late`."""
        return maximum_days(self.late) if self.late else 0

    @property
    def freshness_days(self) -> int:
        """The days after which a value counts as missing."""
        return maximum_days(self.freshness) if self.freshness else self.longest + 2

    @model_validator(mode="after")
    def _has_names_of_its_own(self) -> "FeatureViewSection":
        if reserved := [name for name in self.entity if fold(name) in ("happened_at", "known_at")]:
            raise ValueError(
                f"{', '.join(reserved)} is a column of the SQL of the view: give the column of the table another name"
            )
        taken = [*self.entity, EVENT_TIMESTAMP, EVENT_DATE, LOADED_AT]
        if same := [name for name in self.features if name in map(fold, taken)]:
            raise ValueError(f"{', '.join(same)} is a column of the view already: give the feature another name")
        if self.late is not None and self.late[-1] not in "dw":
            raise ValueError("`late` is in days or weeks, such as 2d")
        return self
